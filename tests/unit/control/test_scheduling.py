"""What the planner is told of the world, and what its answers become: room is neither given twice nor lost."""

from __future__ import annotations

import datetime

import pytest

from datahall import planning
from datahall.control import times
from datahall.control.scheduling import REASONS
from datahall.control.training.waiting import IN_LINE
from tests.unit.control.hall import Hall

pytestmark = pytest.mark.looptime

TERMINATING = {"metadata": {"deletionTimestamp": "2026-11-22T16:10:00Z"}}


async def test_a_job_is_admitted_where_there_is_room():
    hall = Hall()
    job = hall.job(gpus=4, workers=2)
    hall.settle(job)
    (news,) = hall.cycle()
    assert (news.namespace, news.name, news.urgent) == ("team-a", "digits", True)
    places, spread = hall.scheduling.admitted(job["metadata"]["uid"])
    assert spread == "on one node"
    assert [(p.rank, p.node, p.gpu_model) for p in places] == [(0, "node-0", "H100"), (1, "node-0", "H100")]
    assert hall.scheduling.waiting(job["metadata"]["uid"]) is None
    assert hall.used == 8
    assert hall.scheduling.counts("team-a").held == 1


async def test_an_admission_stands_until_the_status_has_it():
    hall = Hall()
    job = hall.job(gpus=8)
    hall.settle(job)
    hall.cycle()
    hall.settle(job)  # another look before the status was written
    assert hall.admitted(job)
    assert hall.cycle() == []
    placement = [{"rank": 0, "node": "node-0", "gpuModel": "H100"}]
    job = hall.change_job(job, status={"generation": 1, "placement": placement})
    hall.settle(job)
    assert not hall.admitted(job)
    assert hall.used == 8


async def test_a_job_without_room_waits_and_is_told_why():
    hall = Hall()
    hall.settle(hall.job("big", places=True))
    job = hall.job("late")
    hall.settle(job)
    (news,) = hall.cycle()
    assert (news.name, news.urgent) == ("late", True)
    assert hall.reason(job) == "QuotaExceeded"


async def test_numbers_that_move_are_no_urgent_news_but_another_reason_is():
    hall = Hall(nodes=2, nominal=16)
    foreign = [hall.pod(f"foreign-{n}", gpus=4, node=f"node-{n}") for n in range(2)]
    job = hall.job(gpus=8)
    hall.settle(job)
    assert [news.urgent for news in hall.cycle()] == [True]
    assert hall.reason(job) == "NoRoom"
    before = hall.scheduling.waiting(job["metadata"]["uid"])
    hall.pod("more", gpus=2, node="node-0")
    assert [news for news in hall.cycle() if news.urgent] == []
    assert hall.scheduling.waiting(job["metadata"]["uid"]).message != before.message, (
        "who asks gets the numbers of now"
    )
    assert hall.cycle() == [], "the same answer again is no news"
    hall.quota(nominal=4)
    (news,) = hall.cycle()
    assert news.urgent
    assert hall.reason(job) != "NoRoom"
    hall.quota(nominal=16)
    for pod in foreign:
        hall.delete_pod(pod)
    assert [news.urgent for news in hall.cycle()] == [True]
    assert hall.admitted(job)


@pytest.mark.parametrize(
    ("queue", "reason"), [("nowhere", "QueueNotFound"), ("closed", "QueueForbidden"), ("team-a", None)]
)
async def test_queues_decide_who_may(queue, reason):
    hall = Hall()
    hall.quota(name="closed", namespaces=["team-b"])
    job = hall.job(queue=queue)
    hall.settle(job)
    hall.cycle()
    assert hall.reason(job) == reason
    assert hall.admitted(job) == (reason is None)


async def test_a_queue_that_comes_later_lets_its_jobs_in():
    hall = Hall()
    job = hall.job(queue="later")
    hall.settle(job)
    hall.cycle()
    wakes = hall.wakes
    hall.quota(name="later")
    assert hall.wakes > wakes, "the planner is woken"
    hall.cycle()
    assert hall.admitted(job)


async def test_a_node_that_comes_later_is_used():
    hall = Hall(nodes=0)
    job = hall.job()
    hall.settle(job)
    hall.cycle()
    assert hall.reason(job) == "NoSuchNodes"
    hall.node("node-9")
    hall.cycle()
    assert hall.admitted(job)


async def test_nothing_starts_on_a_cordoned_node():
    hall = Hall()
    hall.node("node-0", spec={"unschedulable": True})
    job = hall.job()
    hall.settle(job)
    hall.cycle()
    assert not hall.admitted(job)


async def test_a_node_that_goes_takes_its_room_with_it():
    hall = Hall()
    hall.tables.nodes.remove("", "node-0", "node-node-0")
    job = hall.job()
    hall.settle(job)
    hall.cycle()
    assert not hall.admitted(job)


# ---- pods: each is counted once, by its gang or by itself


async def test_foreign_pods_take_room_until_they_end():
    hall = Hall()
    pod = hall.pod("foreign", gpus=1)
    job = hall.job()
    hall.settle(job)
    hall.cycle()
    assert not hall.admitted(job)
    wakes = hall.wakes
    hall.change_pod(pod, status={"phase": "Succeeded"})
    assert hall.wakes > wakes
    hall.cycle()
    assert hall.admitted(job)


async def test_replicas_count_against_their_queue():
    hall = Hall(nodes=2, nominal=8)
    labels = {"datahall.dev/queue": "team-a", "datahall.dev/inference-service": "s"}
    replica = hall.pod("replica", gpus=2, labels=labels)
    assert hall.used == 2
    assert hall.scheduling.quota_room("team-a", "H100") == 6
    hall.delete_pod(replica)
    assert hall.used == 0


async def test_a_gangs_workers_are_counted_once():
    hall = Hall(nodes=2, nominal=16)
    job = hall.job(gpus=4, workers=2, places=True)
    hall.settle(job)
    for rank in range(2):
        hall.worker(job, rank)
    hall.settle(job)
    assert hall.used == 8
    other = hall.job("other", gpus=8)
    hall.settle(other)
    hall.cycle()
    assert hall.admitted(other)


async def test_pods_that_were_seen_before_their_job_are_not_counted_twice():
    hall = Hall(nodes=2, nominal=16)
    loose = Hall()
    job = loose.job(gpus=8, places=True)
    pod = hall.worker(job)
    assert hall.used == 8, "until its job is known, the pod counts by itself"
    hall.tables.jobs.put(job)
    hall.settle(job)
    assert hall.used == 8
    hall.change_pod(pod, status={"phase": "Running", "message": "x"})
    assert hall.used == 8


async def test_the_workers_of_a_deleted_job_keep_their_room_until_they_are_gone():
    hall = Hall()
    job = hall.job(places=True)
    hall.settle(job)
    pod = hall.worker(job)
    other = hall.job("other")
    hall.settle(other)
    pod = hall.change_pod(pod, **TERMINATING)
    hall.delete_job(job)
    hall.cycle()
    assert not hall.admitted(other), "the GPUs are still in use"
    assert hall.used == 8
    assert hall.scheduling.counts("team-a").held == 0, "pods of nobody are no jobs"
    hall.delete_pod(pod)
    hall.cycle()
    assert hall.admitted(other)


async def test_a_deleted_job_without_pods_gives_its_room_back_at_once():
    hall = Hall()
    job = hall.job(places=True)
    hall.settle(job)
    other = hall.job("other")
    hall.settle(other)
    hall.delete_job(job)
    hall.cycle()
    assert hall.admitted(other)


async def test_a_job_made_anew_under_its_name_does_not_give_away_what_the_old_workers_hold():
    hall = Hall()
    job = hall.job(places=True)
    hall.settle(job)
    pod = hall.change_pod(hall.worker(job), **TERMINATING)
    other = hall.job("other", priority=1000)
    hall.settle(other)
    again = hall.job()  # the same name: the watch tells of the deletion and the creation as one
    hall.cycle()
    assert not hall.admitted(other), "nobody has looked at the new job yet, and the old pods still run"
    hall.settle(again)
    hall.cycle()
    assert not hall.admitted(other)
    hall.delete_pod(pod)
    hall.settle(again)
    hall.cycle()
    assert hall.admitted(other)
    assert hall.used == 8


async def test_a_job_that_ended_or_is_suspended_holds_on_while_its_pods_leave():
    hall = Hall()
    job = hall.job(places=True)
    hall.settle(job)
    pod = hall.change_pod(hall.worker(job), **TERMINATING)
    other = hall.job("other")
    hall.settle(other)
    job = hall.change_job(job, spec={"suspend": True}, status={"placement": None})
    hall.settle(job)
    hall.cycle()
    assert not hall.admitted(other)
    hall.change_pod(pod, status={"phase": "Failed"})
    hall.settle(job)
    hall.cycle()
    assert hall.admitted(other)
    assert not hall.admitted(job), "a suspended job does not wait"


async def test_a_blocked_job_neither_waits_nor_stands_in_the_way():
    hall = Hall()
    job = hall.change_job(hall.job(priority=1000), metadata={"deletionTimestamp": "2026-11-22T16:10:00Z"})
    hall.settle(job)
    other = hall.job("other")
    hall.settle(other)
    hall.cycle()
    assert not hall.admitted(job)
    assert hall.admitted(other)
    assert hall.scheduling.counts("team-a").waiting == 0


async def test_a_new_leader_knows_what_is_held_before_it_decides_anything():
    # A standby has seen everything and settled nothing: by name, the waiting job comes first.
    hall = Hall()
    waiting = hall.job("a-waits", priority=1000)
    holding = hall.job("b-holds", places=True)
    hall.worker(holding)
    hall.reconcilers.settle_all()
    hall.cycle()
    assert hall.admitted(waiting) is False
    assert hall.used == 8
    assert hall.scheduling.counts("team-a").held == 1
    assert hall.scheduling.counts("team-a").waiting == 1


async def test_a_new_leader_goes_on_with_what_queues_used():
    hall = Hall()
    now = datetime.datetime.now(datetime.UTC)
    kept = {"decayedGpuSeconds": 86_400, "decayedJoules": 60_480_000, "joulesByHour": [700, 2_520_000]}
    hall.quota(status={"history": {"asOf": times.to_text(now), **kept}})
    hall.reconcilers.settle_all()
    hall.cycle()
    use = hall.scheduling.use("team-a")
    assert (use.gpu_seconds, use.joules) == pytest.approx((86_400, 60_480_000), rel=1e-3)
    assert sum(use.joules_by_hour) == 2_520_700
    assert hall.scheduling.report("team-a").joules.used == 2_520_700


async def test_a_standby_reads_what_queues_used_when_it_takes_over_and_not_before():
    """The leader goes on writing while the standby watches."""
    hall = Hall()
    now = times.to_text(datetime.datetime.now(datetime.UTC))
    for used in (100, 86_400):
        hall.quota(status={"history": {"asOf": now, "decayedGpuSeconds": used, "decayedJoules": 0}})
    hall.reconcilers.settle_all()
    hall.cycle()
    assert hall.scheduling.use("team-a").gpu_seconds == pytest.approx(86_400, rel=1e-3)


async def test_a_new_leader_counts_the_workers_whose_status_has_no_place():
    # The last leader gave the place back, and its pods are still leaving.
    hall = Hall()
    waiting = hall.job("a-waits")
    leaving = hall.job("b-leaves", suspend=True)
    hall.worker(leaving)
    hall.reconcilers.settle_all()
    hall.cycle()
    assert not hall.admitted(waiting)
    assert hall.used == 8


async def test_a_new_leader_does_not_admit_a_job_whose_claim_is_missing():
    hall = Hall()
    job = hall.job(output={"uri": "pvc://absent/x"})
    hall.reconcilers.settle_all()
    hall.cycle()
    assert not hall.admitted(job)


async def test_after_a_failed_start_another_node_is_looked_for():
    hall = Hall(nodes=2, nominal=16)
    job = hall.job(gpus=8)
    failure = {"cause": "Unschedulable", "node": "node-0", "message": "taken"}
    job = hall.change_job(job, status={"failure": failure})
    hall.settle(job)
    hall.cycle()
    (place,), _ = hall.scheduling.admitted(job["metadata"]["uid"])
    assert place.node == "node-1"


async def test_the_workers_of_a_job_that_cannot_be_understood_are_counted_all_the_same():
    hall = Hall()
    job = hall.job(places=True)
    hall.worker(job)
    hall.settle(job)
    job = hall.change_job(job, spec={"task": "Nonsense"})
    assert hall.used == 8
    other = hall.job("other")
    hall.settle(other)
    hall.cycle()
    assert not hall.admitted(other)
    hall.change_job(job, spec={"task": "ImageClassification"})
    assert hall.used == 8


def test_the_planner_and_the_statuses_mean_the_same_by_waiting_in_line():
    assert {REASONS[reason] for reason in planning.IN_LINE} == IN_LINE
