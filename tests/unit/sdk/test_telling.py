"""The story of a job or a service: what it waits for and who is ahead, how it runs, how it ended, what would help."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.reasons import EventType, Reason
from datahall.api.trainingjob import TrainingJob
from datahall.sdk import AsyncClient, EventLine, MisuseError, NotFoundError, Story
from datahall.sdk.helping import help_for
from datahall.sdk.surroundings import Surroundings
from datahall.sdk.telling import NodeUse, story_of
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi

C = samples.condition


def job(name: str = "digits", *, priority: int = 0, made: str = "15:00:00", **status: Any) -> TrainingJob:
    body = samples.job(name, **status)
    body["spec"]["priority"] = priority
    body["metadata"] |= {"creationTimestamp": f"2026-11-22T{made}Z", "uid": f"uid-{name}", "generation": 1}
    return TrainingJob.from_json(body)


def service(**status: Any) -> InferenceService:
    return InferenceService.from_json(samples.service(**status))


def queue(**status: Any) -> Queue:
    return Queue.from_json(samples.queue(**status))


def told(workload: TrainingJob | InferenceService, **around: Any) -> Story:
    return story_of(workload, Surroundings(**around))


# ---- waiting


def test_a_job_that_waits_tells_place_time_and_every_blocker() -> None:
    story = told(job(**samples.waiting()), queues=(queue(),))
    waiting = story.waiting
    assert waiting is not None
    assert (waiting.position, waiting.reason) == (3, "BorrowedAway")
    assert (waiting.starts_at, waiting.since) == ("2026-11-22T15:20:00Z", "2026-11-22T14:30:00Z")
    assert [blocker.message for blocker in waiting.blockers] == [
        blocker["message"] for blocker in samples.BLOCKERS
    ]
    assert [each.reason for each in story.helps] == ["BorrowedAway", "NoRoom"]
    assert story.queue is not None
    assert story.queue.gpus[0].used == 12
    assert (story.running, story.ended, story.stale) == (None, None, False)


def test_who_is_ahead_are_those_of_higher_priority_and_the_older_ones_of_the_same() -> None:
    mine = job(priority=5, made="15:00:00", **samples.waiting())
    others = [
        job("younger", priority=5, made="15:00:01", **samples.waiting()),
        job("older", priority=5, made="14:59:59", **samples.waiting()),
        job("higher", priority=6, made="15:30:00", **samples.waiting()),
        job("lower", priority=4, made="14:00:00", **samples.waiting()),
        job("running", priority=9, made="14:00:00", **samples.running()),
        job("in-no-line", priority=9, made="14:00:00", **samples.waiting(None)),
    ]
    waiting = told(mine, jobs=(mine, *others)).waiting
    assert waiting is not None
    assert [each.name for each in waiting.ahead] == ["higher", "older"]


def test_nobody_is_ahead_of_a_job_that_stands_in_no_line() -> None:
    blockers = [{"reason": "ClaimNotFound", "message": "claim data does not exist"}]
    mine = job(**samples.waiting(None, blockers, startsAt=None))
    story = told(mine, jobs=(mine, job("first", priority=9, **samples.waiting())))
    assert story.waiting is not None
    assert (story.waiting.ahead, story.waiting.position, story.waiting.starts_at) == ((), None, None)
    assert story.helps[0].sentence.startswith("Create the PersistentVolumeClaim in namespace team-a")


def test_a_status_without_waiting_is_told_from_its_condition() -> None:
    waiting = told(job(**samples.queued())).waiting
    assert waiting is not None
    assert [(each.reason, each.message) for each in waiting.blockers] == [("QuotaExceeded", samples.WAITS)]


def test_what_is_wrong_with_its_queue_is_among_what_helps() -> None:
    lost = samples.queue()
    lost["spec"]["parent"] = "nowhere"
    story = told(job(**samples.waiting()), queues=(Queue.from_json(lost),))
    assert (story.helps[-1].reason, story.helps[-1].sentence) == (
        "QueueParentNotFound",
        "Queue team-a: Create the Queue that spec.parent names, or name another.",
    )


def test_a_changed_spec_that_the_operator_has_not_seen_makes_the_story_stale() -> None:
    body = samples.job(**samples.waiting())
    body["metadata"]["generation"] = 2
    assert told(TrainingJob.from_json(body)).stale


def test_a_new_job_has_no_story_but_that_nobody_has_looked() -> None:
    story = told(job())
    assert (story.state, story.waiting, story.running, story.ended, story.helps) == (
        "Pending",
        None,
        None,
        None,
        (),
    )
    assert "has not looked at it yet" in story.message


# ---- running


def test_a_job_that_runs_tells_where_how_far_and_until_when() -> None:
    status = samples.running(
        spread="on one rack", startTime="2026-11-22T15:00:00Z", lastCheckpoint=samples.CHECKPOINT
    )
    body = samples.job(**status)
    body["spec"] |= {"workers": {"count": 4, "min": 1}, "activeDeadlineSeconds": 3600}
    body["status"]["placement"] = [
        {"rank": rank, "node": "gpu-node-1", "gpuModel": "H100"} for rank in (0, 1)
    ]
    granted = samples.queue()
    granted["spec"]["minimumRunSeconds"] = 600
    running = told(TrainingJob.from_json(body), queues=(Queue.from_json(granted),)).running
    assert running is not None
    assert (running.workers, running.wanted, running.fewest) == (2, 4, 1)
    assert (running.nodes, running.spread) == ((NodeUse("gpu-node-1", 2, "H100"),), "on one rack")
    assert running.since == "2026-11-22T15:00:00Z"
    assert running.ends_at == "2026-11-22T15:04:17Z"  # 77 s after the report of 15:03
    assert running.deadline_at == "2026-11-22T16:00:00Z"
    assert running.undisturbed_until == "2026-11-22T15:10:00Z"
    assert running.checkpoint is not None
    assert running.checkpoint.step == 100


def test_who_may_end_a_job_are_waiting_jobs_of_higher_priority_and_lenders() -> None:
    mine = job(priority=5, **samples.running())
    jobs = (
        mine,
        job("equal", priority=5, **samples.waiting()),
        job("higher", priority=6, **samples.waiting()),
        job("runs-too", priority=9, **samples.running()),
    )
    borrows = queue(used=[{"model": "H100", "used": 20, "nominal": 16, "borrowed": 4}])
    running = told(mine, queues=(borrows,), jobs=jobs).running
    assert running is not None
    assert [each.name for each in running.outranked_by] == ["higher"]
    assert running.borrowed == {"H100": 4}


def test_what_is_not_known_of_a_run_is_left_open() -> None:
    status = {"state": "Starting", "conditions": [C("Admitted")], "placement": samples.PLACEMENT}
    running = told(job(**status)).running
    assert running is not None
    assert (
        running.since,
        running.workers,
        running.ends_at,
        running.deadline_at,
        running.undisturbed_until,
    ) == (
        None,
        2,
        None,
        None,
        None,
    )


# ---- preempted, ended


def preempted(minute: int) -> EventLine:
    return EventLine(
        f"2026-11-22T14:{minute}:00Z", "Normal", "TrainingJob/digits", "Preempted", f"at {minute}"
    )


def test_preemptions_are_told_the_newest_from_the_status_and_those_before_from_events() -> None:
    mine = job(**samples.waiting(), preemptions=3, preemptedBy=samples.PREEMPTED_BY)
    story = told(mine, events=(preempted(10), preempted(20), preempted(59)))
    assert story.preemptions == 3
    assert story.preempted_by is not None
    assert story.preempted_by.job == "team-b/pretraining"
    assert [event.message for event in story.earlier_preemptions] == ["at 20", "at 10"]


def test_a_job_that_succeeded() -> None:
    ended = told(job(**samples.succeeded(), completionTime="2026-11-22T15:03:30Z")).ended
    assert ended is not None
    assert (ended.succeeded, ended.sentence, ended.time) == (True, "trained in 3m", "2026-11-22T15:03:30Z")
    assert ended.output is not None
    assert ended.output.digest == samples.DIGEST


def test_a_job_that_failed() -> None:
    story = told(job(**samples.failed()))
    assert story.ended is not None
    assert story.ended.succeeded is False
    assert "no such directory" in story.ended.sentence
    assert story.ended.failure is not None
    assert story.ended.time == "2026-11-22T15:00:00Z"  # the condition's, where no completion time stands
    assert [each.reason for each in story.helps] == ["BadInput"]


# ---- services


def test_a_service_tells_what_it_waits_for_from_its_conditions() -> None:
    story = told(
        service(
            conditions=[
                C("ModelReady", reason="ModelPinned"),
                C("GPUAvailable", False, "QuotaExceeded", "needs 2 GPUs, 1 is left"),
                C("ReplicasReady", False, "ReplicasStarting", "1 of 2 answer"),
                C("Ready", False, "QuotaExceeded", "needs 2 GPUs, 1 is left"),
            ],
            readyReplicas=1,
        )
    )
    assert story.waiting is not None
    assert [each.reason for each in story.waiting.blockers] == ["QuotaExceeded", "ReplicasStarting"]
    assert story.replicas == (1, 2)
    assert story.helps[0].sentence.startswith("The other replicas start when the queue's GPUs come free")
    assert (story.running, story.priority) == (None, None)


def test_a_service_that_serves_waits_for_nothing() -> None:
    story = told(service(**samples.ready()))
    assert (story.state, story.waiting, story.helps, story.replicas) == ("Ready", None, (), (2, 2))


# ---- what helps


_CALM = {
    Reason.NOT_STARTED,
    Reason.PROGRESSING,
    Reason.UP_TO_DATE,
    Reason.NOT_STALLED,
    Reason.ADMITTED,
    Reason.NOT_ADMITTED,
    Reason.GANG_RUNNING,
    Reason.NOT_RUNNING,
    Reason.PREEMPTING,
    Reason.RESTARTED,
    Reason.NOT_RESTARTING,
    Reason.RESUMED,
    Reason.NOT_SUSPENDED,
    Reason.TRAINING_SUCCEEDED,
    Reason.NOT_FINISHED,
    Reason.SERVING,
    Reason.MODEL_PINNED,
    Reason.REPLICAS_READY,
    Reason.GPUS_RESERVED,
    Reason.NO_GPUS_REQUESTED,
    Reason.QUEUE_READY,
    Reason.POWER_DOMAIN_READY,
}
"""Words of which nobody asks what helps: nothing is in the way."""


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in _CALM])
@pytest.mark.parametrize("service", [False, True])
def test_every_reason_that_is_in_somebodys_way_has_one_sentence_of_help(
    reason: Reason, service: bool
) -> None:
    sentence = help_for(reason, service=service, name="n-1", namespace="ns-1", queue="q-1")
    assert sentence.endswith(".")
    assert sentence[0].isupper()
    assert "{" not in sentence


@pytest.mark.parametrize("reason", sorted(_CALM))
def test_calm_words_need_no_help_and_warn_of_nothing(reason: Reason) -> None:
    assert reason.event_type is EventType.NORMAL
    assert help_for(reason, service=False, name="n", namespace="ns", queue="q") == ""


def test_a_word_of_a_newer_operator_gets_no_help() -> None:
    assert help_for("Sunspots", service=False, name="n", namespace="ns", queue="q") == ""


# ---- read from the cluster


async def test_explain_reads_queue_line_and_events(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.queue())
    api.put(samples.job(**samples.waiting()))
    first = samples.job("first", "team-b", **samples.waiting())
    first["spec"]["priority"] = 7
    api.put(first)
    elsewhere = samples.job("elsewhere", **samples.waiting())
    elsewhere["spec"] |= {"queue": "other", "priority": 9}
    api.put(elsewhere)
    broken = samples.job("broken", **samples.waiting())
    broken["spec"]["task"] = "Telepathy"
    api.put(broken)
    api.put(samples.event(1, "Queued", "waits"))
    story = await client.explain("digits")
    assert story.waiting is not None
    assert [f"{each.namespace}/{each.name}" for each in story.waiting.ahead] == ["team-b/first"]
    assert [event.reason for event in story.events] == ["Queued"]
    assert story.unread == ()
    lists = [query for method, _, query in api.requests if method == "GET"]
    assert all("resourceVersion" not in query for query in lists), "what may be old is not told as true"


async def test_explain_names_what_it_may_not_read(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.waiting()))
    older = samples.job("older", **samples.waiting())
    older["metadata"]["creationTimestamp"] = "2026-11-22T14:00:00Z"
    api.put(older)
    api.forbidden |= {"queues", "events"}
    api.forbidden_everywhere.add("trainingjobs")
    story = await client.explain("digits")
    assert story.unread == ("Queues", "TrainingJobs outside namespace team-a", "Events")
    assert story.queue is None
    assert story.waiting is not None
    assert [each.name for each in story.waiting.ahead] == ["older"]


async def test_explain_of_a_service_a_queue_and_nothing(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.service("front", **samples.ready()))
    assert (await client.explain("front", kind="infs")).state == "Ready"
    with pytest.raises(MisuseError, match="a Queue runs nothing"):
        await client.explain("team-a", kind="queue")
    with pytest.raises(NotFoundError):
        await client.explain("none")
