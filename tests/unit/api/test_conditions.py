import pytest

from datahall.api.common import Condition
from datahall.api.conditions import (
    INFERENCE_SERVICE_CONDITIONS,
    QUEUE_CONDITIONS,
    TRAINING_JOB_CONDITIONS,
    ConditionType,
    find_condition,
    inference_service_state,
    is_true,
    set_condition,
    training_job_state,
)
from datahall.api.reasons import Cause, EventType, Reason

EARLY, LATE = "2026-11-22T15:00:00Z", "2026-11-22T16:00:00Z"


def conditions(**statuses: bool | None) -> tuple[Condition, ...]:
    result: tuple[Condition, ...] = ()
    for type_, status in statuses.items():
        result = set_condition(
            result, type_=type_, status=status, reason=Reason.PROGRESSING, generation=1, now=EARLY
        )
    return result


def test_a_new_condition_is_added_last():
    assert [condition.type for condition in conditions(Queued=True, Admitted=False)] == ["Queued", "Admitted"]


def test_the_time_moves_only_when_the_status_flips():
    before = conditions(Queued=True)
    same = set_condition(
        before, type_="Queued", status=True, reason="NoRoom", message="new", generation=2, now=LATE
    )
    assert same[0].last_transition_time == EARLY
    assert (same[0].reason, same[0].message, same[0].observed_generation) == ("NoRoom", "new", 2)
    flipped = set_condition(same, type_="Queued", status=False, reason="Admitted", generation=2, now=LATE)
    assert flipped[0].last_transition_time == LATE


def test_the_others_and_the_order_stay():
    before = conditions(Queued=True, Admitted=False, Running=None)
    after = set_condition(before, type_="Admitted", status=True, reason="Admitted", generation=1, now=LATE)
    assert [condition.type for condition in after] == ["Queued", "Admitted", "Running"]
    assert (after[0], after[2]) == (before[0], before[2])


def test_an_unknown_status_is_not_true():
    known = conditions(Running=None)
    assert find_condition(known, "Running").status == "Unknown"
    assert not is_true(known, "Running")
    assert not is_true(known, "Failed")


def test_a_message_is_cut_to_what_the_api_server_takes():
    (condition,) = set_condition(
        (), type_="Failed", status=True, reason="X", message="m" * 9999, generation=1, now=EARLY
    )
    assert len(condition.message) == 4096
    assert condition.message.endswith("m...")


def test_a_condition_is_written_whole():
    (condition,) = conditions(Queued=True)
    assert condition.to_json() == {
        "type": "Queued",
        "status": "True",
        "reason": "Progressing",
        "message": "",
        "lastTransitionTime": EARLY,
        "observedGeneration": 1,
    }


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ({}, "Pending"),
        ({"Queued": True}, "Queued"),
        ({"Queued": False, "Admitted": True}, "Starting"),
        ({"Admitted": True, "Running": True}, "Running"),
        ({"Admitted": True, "Running": False, "Restarting": True}, "Restarting"),
        ({"Queued": True, "Suspended": True}, "Suspended"),
        ({"Failed": True, "Running": False, "Stalled": True}, "Failed"),
        ({"Succeeded": True, "Running": False}, "Succeeded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_a_job(statuses, state):
    assert training_job_state(conditions(**statuses)) == state
    assert training_job_state(conditions(**dict(reversed(statuses.items())))) == state


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ({}, "Pending"),
        ({"Ready": True, "ModelReady": True}, "Ready"),
        ({"Ready": False, "ModelReady": False}, "WaitingForModel"),
        ({"Ready": False, "ModelReady": True, "GPUAvailable": False}, "Queued"),
        ({"Ready": False, "ModelReady": True, "GPUAvailable": True}, "Progressing"),
        ({"Ready": False, "Stalled": True}, "Stalled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_a_service(statuses, state):
    assert inference_service_state(conditions(**statuses)) == state


def test_every_condition_is_explained():
    explained = TRAINING_JOB_CONDITIONS.keys() | INFERENCE_SERVICE_CONDITIONS.keys() | QUEUE_CONDITIONS.keys()
    assert explained == set(ConditionType)


@pytest.mark.parametrize("word", [*Reason, *Cause], ids=str)
def test_words_are_camel_case_and_explained(word):
    assert str(word).isalnum()
    assert str(word)[0].isupper()
    assert len(str(word)) <= 63
    assert word.description.endswith(".")


def test_reasons_say_how_their_event_is_marked():
    assert Reason("BadInput").event_type is EventType.WARNING
    assert Reason("Admitted").event_type is EventType.NORMAL


def test_causes_say_whether_they_count():
    assert Cause.BAD_INPUT.fatal
    assert {cause for cause in Cause if not cause.counted} == {
        Cause.UNSCHEDULABLE,
        Cause.INTERRUPTED,
        Cause.EVICTED,
        Cause.NODE_LOST,
        Cause.POD_DELETED,
        Cause.PREEMPTED,
        Cause.DEADLINE,
    }
