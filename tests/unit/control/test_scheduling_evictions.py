"""Who ends for whom, and how that reaches the jobs: the planner's evictions, and its memory after them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from datahall.api.trainingjob import TrainingJob
from datahall.control import gangs, times
from datahall.control.gpu_power import cap_watts
from datahall.planning import Evict, GangRequest
from tests.unit.control.hall import Hall

pytestmark = pytest.mark.looptime

TERMINATING = {"metadata": {"deletionTimestamp": "2026-11-22T16:10:00Z"}}
Json = dict[str, Any]


def uid(body: Json) -> str:
    return str(body["metadata"]["uid"])


def running(hall: Hall, name: str, **spec: Any) -> Json:
    """A job that was admitted by the planner, long enough ago, and has its pods."""
    job = hall.job(name, **spec)
    hall.settle(job)
    hall.cycle()
    job = hall.write_admission(job)
    hall.worker(job, node=job["status"]["placement"][0]["node"])
    since = times.to_text(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))
    conditions = [
        {"type": kind, "status": "True", "reason": "x", "lastTransitionTime": since, "message": ""}
        for kind in ("Admitted", "Running")
    ]
    job = hall.change_job(job, status={"conditions": conditions})
    hall.settle(job)
    return job


def evicted(hall: Hall, job: Json) -> Json:
    """What the job's next look writes."""
    return hall.change_job(job, status={"placement": None, "preemptions": 1})


async def test_a_higher_priority_ends_a_lower_one_of_its_queue():
    hall = Hall()
    low = running(hall, "low")
    high = hall.job("high", priority=1000)
    hall.settle(high)
    news = hall.cycle()
    assert ("low", True) in {(n.name, n.urgent) for n in news}
    eviction = hall.scheduling.eviction(uid(low))
    assert (eviction.preemptor, eviction.priority) == ("team-a/high", 1000)
    assert "its priority, 1000, is higher" in eviction.message
    assert hall.reason(high) == "MakingRoom"
    assert "team-a/low" in hall.scheduling.waiting(uid(high)).message
    assert not hall.admitted(high), "the GPUs are still in use"


async def test_the_room_is_free_when_the_last_worker_is_gone_and_the_victim_waits_in_line():
    hall = Hall()
    low = running(hall, "low")
    high = hall.job("high", priority=1000)
    hall.settle(high)
    hall.cycle()
    low = evicted(hall, low)
    hall.settle(low)
    assert hall.scheduling.eviction(uid(low)) is None, "the status has it"
    assert hall.scheduling.planner.is_leaving(uid(low))
    hall.cycle()
    assert not hall.admitted(high)
    pod = hall.tables.pods.get("team-a", "low-g1-0")
    hall.tables.pods.remove("team-a", "low-g1-0", pod.uid)
    hall.settle(low)
    hall.cycle()
    assert hall.admitted(high)
    assert hall.reason(low) == "QuotaExceeded"
    assert hall.scheduling.counts("team-a") == (hall.scheduling.counts("team-a").__class__)(waiting=1, held=1)


async def test_an_eviction_stands_until_it_is_written_whatever_looks_come_between():
    hall = Hall()
    low = running(hall, "low")
    hall.settle(hall.job("high", priority=1000))
    hall.cycle()
    for _ in range(3):
        hall.settle(low)
        assert hall.scheduling.eviction(uid(low)) is not None
        assert [n for n in hall.cycle() if n.name == "low"] == [], "once is enough"


async def test_a_new_leader_plans_an_unwritten_eviction_anew():
    hall = Hall()
    low = running(hall, "low")
    high = hall.job("high", priority=1000)
    again = Hall()
    for body in (low, high):
        again.tables.jobs.put(body)
    again.worker(low)
    again.reconcilers.settle_all()
    again.cycle()
    assert again.scheduling.eviction(uid(low)) is not None


async def test_a_new_leader_waits_for_what_a_written_eviction_left():
    hall = Hall()
    low = evicted(hall, running(hall, "low"))
    high = hall.job("high", priority=1000)
    again = Hall()
    for body in (low, high):
        again.tables.jobs.put(body)
    pod = again.worker(low)
    again.reconcilers.settle_all()
    again.cycle()
    assert again.scheduling.eviction(uid(low)) is None
    assert not again.admitted(high)
    again.delete_pod(pod)
    again.settle(low)
    again.cycle()
    assert again.admitted(high)


@pytest.mark.parametrize("how", ["deleted", "suspended", "done"])
async def test_a_victim_that_goes_otherwise_leaves_nothing_behind(how):
    hall = Hall()
    low = running(hall, "low")
    high = hall.job("high", priority=1000)
    hall.settle(high)
    hall.cycle()
    if how == "deleted":
        hall.delete_job(low)
    else:
        done = {
            "conditions": [
                {
                    "type": "Succeeded",
                    "status": "True",
                    "reason": "x",
                    "message": "",
                    "lastTransitionTime": "2026-11-22T16:10:00Z",
                }
            ]
        }
        low = hall.change_job(
            low,
            **({"spec": {"suspend": True}} if how == "suspended" else {}),
            status={"placement": None, **(done if how == "done" else {})},
        )
        hall.settle(low)
    hall.cycle()
    assert not hall.admitted(high), "its pods are still there"
    assert hall.scheduling.eviction(uid(low)) is None
    hall.tables.pods.remove("team-a", "low-g1-0", hall.tables.pods.get("team-a", "low-g1-0").uid)
    if how != "deleted":
        hall.settle(low)
    hall.cycle()
    assert hall.admitted(high)


async def test_a_job_that_is_being_deleted_is_nobodys_victim_and_holds_what_its_pods_hold():
    hall = Hall()
    low = running(hall, "low")
    gone = hall.change_job(low, **TERMINATING)
    hall.reconcilers._settle(
        TrainingJob.from_json(gone), hall.reconcilers._pods("team-a", "low"), blocked=True, deleting=True
    )
    high = hall.job("high", priority=1000)
    hall.settle(high)
    hall.cycle()
    assert hall.scheduling.eviction(uid(low)) is None, "nobody would carry it out"
    assert hall.reason(high) == "QuotaExceeded"
    assert not hall.scheduling.planner.is_leaving(uid(low)), "a finalizer may keep it and its pods"
    pod = hall.tables.pods.get("team-a", "low-g1-0")
    hall.tables.pods.remove("team-a", "low-g1-0", pod.uid)
    hall.reconcilers._settle(TrainingJob.from_json(gone), (), blocked=True, deleting=True)
    hall.cycle()
    assert hall.admitted(high), "a place that no pod will ever take is free"


@pytest.mark.parametrize("how", ["deleted", "suspended"])
async def test_a_preemptor_that_goes_lets_the_victim_come_back(how):
    hall = Hall()
    low = running(hall, "low")
    high = hall.job("high", priority=1000)
    hall.settle(high)
    hall.cycle()
    if how == "deleted":
        hall.delete_job(high)
    else:
        hall.settle(hall.change_job(high, spec={"suspend": True}))
    hall.cycle()
    low = evicted(hall, low)  # it was told, and nobody takes that back
    hall.settle(low)
    hall.tables.pods.remove("team-a", "low-g1-0", hall.tables.pods.get("team-a", "low-g1-0").uid)
    hall.settle(low)
    hall.cycle()
    assert hall.admitted(low)


async def test_nobody_is_ended_before_the_minimum_run_time():
    hall = Hall()
    hall.quota(minimumRunSeconds=7200)
    low = running(hall, "low")  # an hour ago
    high = hall.job("high", priority=1000)
    hall.settle(high)
    hall.cycle()
    assert hall.scheduling.eviction(uid(low)) is None
    assert hall.reason(high) == "QuotaExceeded"


async def test_what_was_lent_is_taken_back_whatever_the_priority():
    hall = Hall(nodes=2)
    hall.quota(name="research", nominal=0)
    hall.quota(name="team-a", nominal=8, parent="research")
    hall.quota(name="team-b", nominal=8, parent="research")
    own, borrowed = (running(hall, name, priority=1000) for name in ("own", "borrowed"))
    assert hall.scheduling.report("team-a").gpus["H100"].borrowed == 8
    claim = hall.job("claim", queue="team-b")
    hall.settle(claim)
    hall.cycle()
    evictions = [hall.scheduling.eviction(uid(job)) for job in (own, borrowed)]
    (eviction,) = [e for e in evictions if e is not None]
    assert eviction.preemptor == "team-a/claim"
    assert eviction.priority is None, "priority did not decide"
    assert "takes back" in eviction.message


async def test_who_is_no_job_is_named_all_the_same():
    hall = Hall()
    job = running(hall, "low")
    gang = GangRequest("replica", "team-b/llm-0", "team-b", "team-b", 5, 0.0, 1, 8, (), 0, 0)
    hall.scheduling.gang_of_other = {"replica": gang}.get
    hall.scheduling._take(Evict(uid(job), "replica", "makes room"))
    assert hall.scheduling.eviction(uid(job)).preemptor == "team-b/llm-0"


async def test_decisions_on_gangs_that_are_no_jobs_are_handed_on():
    hall = Hall()
    seen = []
    hall.scheduling.others = lambda decision: seen.append(decision) or []
    gang = GangRequest("replica", "team-a/llm-0", "team-a", "team-a", 0, 0.0, 1, 1, (), 0, 0)
    hall.scheduling.planner.submit(gang)
    assert hall.cycle() == []
    assert [decision.key for decision in seen] == ["replica"]


# ---- size and shape


async def test_a_gang_that_may_starts_with_fewer():
    hall = Hall(nominal=5)
    job = hall.job(gpus=1, workers=8)
    job["spec"]["workers"]["min"] = 3
    job = hall.change_job(job)
    hall.settle(job)
    hall.cycle()
    places, _ = hall.scheduling.admitted(uid(job))
    assert len(places) == 5


async def test_a_gang_that_started_with_fewer_grows_when_room_has_come():
    hall = Hall(nominal=5)
    job = running(hall, "digits", gpus=1, workers=8, fewest=3)
    assert len(job["status"]["placement"]) == 5
    pods = [hall.worker(job, rank) for rank in range(5)]
    hall.settle(job)
    hall.cycle()
    hall.quota(nominal=8)
    assert [(news.name, news.urgent) for news in hall.cycle()] == [("digits", True)]
    eviction = hall.scheduling.eviction(uid(job))
    assert (eviction.preemptor, str(eviction.reason)) == ("", "Resized")
    assert "8 workers instead of 5" in eviction.message
    rival = hall.job("rival", gpus=1, priority=1000)
    hall.settle(rival)
    job = evicted(hall, job)
    for pod in pods:
        hall.settle(job)
        hall.cycle()
        assert not hall.admitted(job)
        assert not hall.admitted(rival), "room is held for its return"
        hall.delete_pod(pod)
    hall.settle(job)
    hall.cycle()
    places, _ = hall.scheduling.admitted(uid(job))
    assert len(places) == 8


@pytest.mark.parametrize("mode", ["Required", "Preferred"])
async def test_a_topology_is_asked_for(mode):
    hall = Hall(nodes=0, nominal=64)
    for number in range(4):
        rack = {"labels": {"nvidia.com/gpu.product": "H100", "datahall.dev/rack": f"r{number // 2}"}}
        hall.node(f"node-{number}", metadata=rack)
    hall.pod("foreign", gpus=8, node="node-0")
    job = hall.job(gpus=8, workers=2, topology={"level": "rack", "mode": mode})
    hall.settle(job)
    hall.cycle()
    places, spread = hall.scheduling.admitted(uid(job))
    assert {place.node for place in places} == {"node-2", "node-3"}
    assert spread == "on one rack"
    late = hall.job("late", gpus=8, workers=3, topology={"level": "rack", "mode": mode})
    hall.settle(late)
    hall.cycle()
    assert hall.reason(late) == ("NoSuchNodes" if mode == "Required" else "NoRoom")


# ---- what gangs say of themselves


def job_with(status: Json | None = None, **spec: Any) -> TrainingJob:
    hall = Hall()
    return TrainingJob.from_json(hall.change_job(hall.job(**spec), status=status or {}))


NOW = datetime.datetime(2026, 11, 22, 18, 0, tzinfo=datetime.UTC)
PROGRESS = {"step": 400, "totalSteps": 1000, "etaSeconds": 600, "time": "2026-11-22T17:59:00Z"}


@pytest.mark.parametrize(
    ("status", "spec", "seconds"),
    [
        ({}, {}, None),
        ({}, {"activeDeadlineSeconds": 3601}, 3660),
        ({"startTime": "2026-11-22T17:30:00Z"}, {"activeDeadlineSeconds": 3600}, 1800),
        ({"startTime": "2026-11-22T12:30:00Z"}, {"activeDeadlineSeconds": 60}, 60),
        ({"progress": PROGRESS}, {}, 600),
        ({"progress": PROGRESS, "lastCheckpoint": {"step": 100, "uri": "u"}}, {}, 900),
        ({"progress": PROGRESS | {"etaSeconds": 1}}, {}, 60),
        ({"progress": PROGRESS}, {"activeDeadlineSeconds": 120}, 120),
        ({"progress": {"step": 4}}, {}, None),
    ],
)
async def test_how_long_a_waiting_job_will_run(status, spec, seconds):
    assert gangs.run_seconds(job_with(status, **spec), NOW) == seconds


def condition(kind: str, at: str) -> Json:
    return {"type": kind, "status": "True", "reason": "x", "message": "", "lastTransitionTime": at}


async def test_how_a_held_job_does():
    admitted, runs = (
        condition("Admitted", "2026-11-22T17:00:00Z"),
        condition("Running", "2026-11-22T17:10:00Z"),
    )
    checkpoint = {"step": 200, "uri": "u", "time": "2026-11-22T17:40:00Z"}
    assert gangs.progress_of(job_with()) is None
    starting = gangs.progress_of(job_with({"conditions": [admitted], "progress": PROGRESS}))
    assert starting.started_seconds == times.from_text("2026-11-22T17:00:00Z").timestamp()
    assert (starting.saved_seconds, starting.end_seconds) == (None, None)
    status = {"conditions": [admitted, runs], "progress": PROGRESS, "lastCheckpoint": checkpoint}
    going = gangs.progress_of(job_with(status))
    assert going.started_seconds == times.from_text("2026-11-22T17:10:00Z").timestamp()
    assert going.saved_seconds == times.from_text("2026-11-22T17:40:00Z").timestamp()
    assert going.end_seconds == times.from_text("2026-11-22T18:09:00Z").timestamp()


async def test_before_its_first_report_a_restarted_gang_is_where_its_checkpoint_is():
    runs = condition("Running", "2026-11-22T18:10:00Z")
    status = {"conditions": [runs], "progress": PROGRESS, "lastCheckpoint": {"step": 100, "uri": "u"}}
    going = gangs.progress_of(job_with(status))
    assert going.end_seconds == times.from_text("2026-11-22T18:25:00Z").timestamp()


async def test_progress_is_no_change_of_what_is_held():
    hall = Hall()
    job = running(hall, "low", activeDeadlineSeconds=3600)
    hall.cycle()
    job = hall.change_job(job, status={"progress": PROGRESS, "startTime": "2026-11-22T17:30:00Z"})
    hall.settle(job)
    assert not hall.scheduling.planner._changed, "the next cycle has nothing to decide"


@pytest.mark.parametrize(
    ("model", "label", "watts"),
    [
        ("NVIDIA-H100-80GB-HBM3", None, 700),
        ("NVIDIA-H100-PCIe", None, 350),
        ("NVIDIA-A100-SXM4-80GB", None, 400),
        ("NVIDIA-A100-PCIE-40GB", None, 250),
        ("NVIDIA-L40S", None, 350),
        ("Tesla-T4", None, 70),
        ("NVIDIA-GB200", None, 1200),
        ("H100", "500", 500),
        ("H100", "0", 700),
        ("H100", "-5", 700),
        ("H100", "lots", 700),
        ("H100", "9999999", 700),
        ("Unheard-Of", None, 0),
        ("Unheard-Of", "250", 250),
        ("", "250", 0),
    ],
)
def test_what_is_reserved_for_a_gpu_is_its_cap(model, label, watts):
    assert cap_watts({} if label is None else {"datahall.dev/gpu-cap-watts": label}, model) == watts


async def test_watts_are_reserved_at_the_caps_of_nodes():
    hall = Hall(nodes=0, nominal=16)
    labels = {"nvidia.com/gpu.product": "H100", "datahall.dev/gpu-cap-watts": "500"}
    hall.node("node-0", metadata={"labels": labels})
    hall.quota(nominal=16, watts={"nominal": 3000})
    job = hall.job(gpus=4)
    hall.settle(job)
    hall.cycle()
    assert hall.scheduling.report("team-a").watts.used == 2000
    late = hall.job("late", gpus=4)
    hall.settle(late)
    hall.cycle()
    assert hall.reason(late) == "PowerBudgetExceeded"


async def test_who_would_move_is_known_before_anybody_is_told_to_end():
    hall = Hall(nodes=2, nominal=16)
    here = running(hall, "here", gpus=1)
    filler = hall.job("filler", gpus=7)
    hall.settle(filler)
    hall.cycle()
    filler = hall.write_admission(filler)
    there = running(hall, "there", gpus=1)
    hall.delete_job(filler)
    whole = hall.job("whole", gpus=8)
    now = times.to_text(datetime.datetime.now(datetime.UTC))
    whole = hall.change_job(whole, metadata={"creationTimestamp": now})
    hall.settle(whole)
    hall.cycle()
    plan = hall.scheduling.waiting(uid(whole)).moves
    (move,) = plan.moves
    assert move.name in {"team-a/here", "team-a/there"}
    assert (set(move.source) | set(move.target)) == {"node-0", "node-1"}
    assert plan.gpu_seconds == pytest.approx(3600 + 60, abs=5), (
        "an hour that was never saved, and the restart"
    )
    assert plan.due_seconds == pytest.approx(
        datetime.datetime.now().timestamp() + plan.gpu_seconds / 8, abs=5
    )
    assert hall.scheduling.eviction(uid(here)) is None
    assert hall.scheduling.eviction(uid(there)) is None
