"""Exit codes and causes: the table of the contract, the trainer, the server and the operator say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datahall.api.reasons import Cause
from datahall.control.training import causes
from datahall.control.views import pod_view
from datahall_server import termination as server_termination
from datahall_trainer import errors, launcher
from tests.contract import document

ROWS = {int(row[0]): row[1:] for row in document.table("exit code")}
TRAINER = (
    errors.BadInput,
    errors.ArtifactError,
    errors.PeerLost,
    errors.Fenced,
    errors.Interrupted,
    errors.TrainerError,
)


def ended(code: int, *, reason: str = "Error", said: Any = None) -> Any:
    terminated = {"exitCode": code, "reason": reason, "message": json.dumps(said) if said else ""}
    return pod_view(
        {
            "metadata": {
                "name": "digits-g1-0",
                "namespace": "team-a",
                "uid": "u",
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-22T16:00:00Z",
            },
            "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": terminated}}]},
        }
    )


def test_the_table_has_these_codes_and_no_others():
    assert set(ROWS) == {0, 1, 65, 75, 137, 143}


@pytest.mark.parametrize("error", TRAINER)
def test_what_the_trainer_exits_with_is_in_the_table_under_its_cause(error):
    assert ROWS[error.exit_code][1] == error.cause


def test_the_operator_reads_the_same_codes():
    assert errors.BadInput.exit_code == causes.EXIT_BAD_INPUT == server_termination.EXIT_BAD_INPUT
    assert errors.PeerLost.exit_code == causes.EXIT_PEER_LOST
    assert errors.Interrupted.exit_code == causes.SIGTERM_EXIT
    assert causes.SIGKILL_EXIT in ROWS
    assert server_termination.EXIT_ENGINE_DIED == errors.TrainerError.exit_code == 1


@pytest.mark.parametrize("code", [1, 65, 75, 143])
def test_the_operator_gives_each_code_the_cause_of_the_table(code):
    cause = ROWS[code][1]
    end = causes.worker_end(ended(code, said={"result": "Failed", "cause": cause, "message": "why"}))
    assert (end.cause, end.message) == (cause, "why")


def test_a_killed_worker_is_out_of_memory_only_if_the_kubelet_says_so():
    assert "OutOfMemory if the kubelet says so, else Killed" in ROWS[137][0]
    assert causes.worker_end(ended(137, reason="OOMKilled")).cause is Cause.OUT_OF_MEMORY
    assert causes.worker_end(ended(137)).cause is Cause.KILLED


@pytest.mark.parametrize(
    ("code", "word"), [(65, "fails at once"), (75, "alone it counts"), (143, "no"), (1, "yes"), (137, "yes")]
)
def test_what_counts_is_what_the_table_says(code, word):
    cause = Cause(ROWS[code][1] or "Killed")
    assert ROWS[code][2].split(",")[0].endswith(word)
    assert cause.counted == (word != "no")
    assert cause.fatal == (word == "fails at once")


def test_a_foreign_program_that_exits_65_is_not_final():
    assert causes.worker_end(ended(65)).cause is Cause.USER_CODE


def test_the_causes_that_only_the_operator_sees_are_in_its_catalogue():
    line = next(line for line in document.TEXT.splitlines() if line.startswith("The operator adds causes"))
    names = {word.strip(" .") for word in line.split(":")[1].replace("(not counted)", "").split(",")}
    assert names <= {str(cause) for cause in Cause}
    uncounted = {
        word.strip() for word in line.split(":")[1].split("(not counted)")[0].split(",") if word.strip()
    }
    assert uncounted == {"Evicted", "NodeLost", "PodDeleted", "Preempted"}
    assert not any(Cause(name).counted for name in uncounted)


def test_of_several_ranks_of_a_worker_the_same_end_is_told_as_of_several_workers():
    telling = [Cause(ROWS[code][1]) for code in launcher._MOST_TELLING]
    order = [cause for cause in causes._TELLING if cause in telling]
    assert telling == order
