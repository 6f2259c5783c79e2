"""`datahall explain` and `datahall queue` through typer: the whole pages, and what programs get."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import yaml

from tests.unit.cli.conftest import Run
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi


def page(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def tell(api: FakeApi, *bodies: samples.Json) -> None:
    for body in bodies:
        api.put(body)


def granted(**spec: Any) -> samples.Json:
    """team-a, beneath research, with more than its own in use."""
    body = samples.queue(
        used=[
            {"model": "H100", "used": 20, "nominal": 16, "borrowed": 4, "available": 2},
            {"model": "Any", "used": 0, "nominal": 8, "borrowed": 0, "available": 8},
        ],
        watts={"reserved": 14_000, "available": 2_800},
        joules={"lastDay": 312_000_000, "available": 188_000_000},
        share="0.125",
    )
    body["spec"] |= {
        "parent": "research",
        "watts": {"nominal": 16_800},
        "joulesPerDay": {"nominal": 500_000_000},
        **spec,
    }
    return body


def first_in_line() -> samples.Json:
    body = samples.job("first", "team-b", **samples.waiting(1))
    body["spec"] |= {"priority": 9, "resources": {"gpus": 8}}
    del body["status"]["waiting"]["startsAt"]
    return body


def test_explain_a_job_that_waits(api: FakeApi, run: Run) -> None:
    mine = samples.job(**samples.waiting(2), preemptions=2, preemptedBy=samples.PREEMPTED_BY)
    tell(api, samples.branch("research", share="0"), granted(), mine, first_in_line())
    tell(api, samples.event(1, "Preempted", "made room for team-b/other"))
    tell(api, samples.event(2, "Preempted", "made room for team-b/pretraining", series={"count": 2}))
    shown = run("explain", "digits")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == page(
        f"""
        TrainingJob digits in namespace team-a
        State:       Queued (BorrowedAway), since 15:00 UTC, 4m ago
        Waits:       since 14:30 UTC, 34m ago
        Place:       2nd in line of queue team-a, with priority 0; 1 before it is named below
        Start:       about 15:20 UTC, in 16m: an estimate, from what runs now
        Queue:       team-a: 3 jobs and replicas hold a place, 1 waits; share 0.125; its turn is next
                     H100 20 of 16 held, 4 borrowed, 2 available
                     Any 0 of 8 held, 8 available
                     14 kW reserved, 2800 W available

        What it waits for
          REASON        MESSAGE
          BorrowedAway  {samples.BLOCKERS[0]["message"]}
          NoRoom        {samples.BLOCKERS[1]["message"]}

        Ahead of it in queue team-a
          PLACE  NAME   NAMESPACE  PRIORITY  AGE  NEEDS  STARTS  REASON
          1      first  team-b     9         4m   2x8    -       BorrowedAway

        What helps
          REASON        DO
          BorrowedAway  Nothing: it is the queue's own quota, and who borrowed it gives it back as jobs end or, after \
their minimum run time, are ended for it.
          NoRoom        It starts when nodes come free; a smaller workers.min, fewer GPUs per worker or more models in \
resources.gpuModels fit sooner.

        Ended 2 times to make room for others
          WHEN       WHY
          15:01 UTC  for team-b/pretraining: queue team-b takes back 8 H100 GPUs that it had lent
          15:01 UTC  made room for team-b/other

        Lately
          WHEN         REASON     MESSAGE
          3m ago       Preempted  made room for team-b/other
          2m ago (x2)  Preempted  made room for team-b/pretraining
        """
    )


def test_explain_says_who_would_move_for_it(api: FakeApi, run: Run) -> None:
    tell(api, granted(), samples.job(**samples.waiting(1, moves=samples.MOVES)))
    assert (
        page(
            """
            Moves for it at about 15:03 UTC, if nothing else makes room before
              JOB           FROM    TO      GPU-SECONDS
              team-b/small  node-1  node-3  71
            """
        )
        in run("explain", "digits").stdout
    )


def test_moves_are_a_dry_run_for_all_who_wait(api: FakeApi, run: Run) -> None:
    two = samples.MOVES | {
        "jobs": [*samples.MOVES["jobs"], samples.MOVES["jobs"][0] | {"job": "team-a/tiny"}]
    }
    tell(api, samples.job("whole", **samples.waiting(1, moves=two)), samples.job(**samples.waiting(2)))
    shown = run("moves")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == page(
        """
        FOR           NEEDS      MOVES         FROM    TO      GPU-SECONDS  DUE
        team-a/whole  2 x 1 GPU  team-b/small  node-1  node-3  71           15:03 UTC
        team-a/whole  2 x 1 GPU  team-a/tiny   node-1  node-3  71           15:03 UTC
        """
    )
    (plan,) = json.loads(run("moves", "-A", "-o", "json").stdout)["plans"]
    assert (plan["name"], plan["gpuSeconds"], plan["jobs"][1]["job"]) == ("whole", 71, "team-a/tiny")


def test_where_nobody_would_move_that_is_said(api: FakeApi, run: Run) -> None:
    tell(api, samples.job(**samples.waiting(2)))
    shown = run("moves")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert shown.stderr.strip() == "No job would move for a waiting job of namespace team-a."


def test_explain_says_when_an_estimate_was_too_early_and_when_there_is_none(api: FakeApi, run: Run) -> None:
    api.put(samples.job("late", **samples.waiting(startsAt="2026-11-22T15:00:00Z")))
    assert (
        "Start:       was expected at 15:00 UTC, 4m ago: what is before it" in run("explain", "late").stdout
    )
    api.put(samples.job("unknown", **samples.waiting(startsAt=None)))
    assert "Start:       nobody can tell\n" in run("explain", "unknown").stdout
    api.put(samples.job("stuck", **samples.waiting(None)))
    assert "Place:       in no line of queue team-a yet\n" in run("explain", "stuck").stdout


def test_explain_a_job_that_runs(api: FakeApi, run: Run) -> None:
    status = samples.running(
        spread="on one rack", startTime="2026-11-22T15:00:00Z", lastCheckpoint=samples.CHECKPOINT
    )
    mine = samples.job(**status)
    mine["spec"] |= {"workers": {"count": 4, "min": 1}, "activeDeadlineSeconds": 3600}
    tell(api, samples.branch("research"), granted(minimumRunSeconds=600), mine, first_in_line())
    assert run("explain", "tj/digits").stdout == page(
        """
        TrainingJob digits in namespace team-a
        State:       Running (GangRunning), since 15:00 UTC, 4m ago
        Why:         2 of 2 workers run
        Place:       has its place, with priority 0
        Workers:     2 of 4 (it starts with 1 or more)
        Where:       on one rack
                     gpu-node-1 (1 worker, H100)
                     gpu-node-2 (1 worker, H100)
        Progress:    step 120 of 625, 19 %, epoch 1 of 5, 410 samples/s, on cpu, 77s to go
        End:         about 15:04 UTC, in 17s, at the speed of its last report
                     its deadline is 16:00 UTC, in 56m
        If ended:    it is asked to save, and waits in line again; if it cannot save, it goes on from step 100, \
saved 90s ago, 20 steps back
        By whom:     nobody before 15:10 UTC, in 6m: the queue's minimum run time
                     by priority: team-b/first (9) of its queue, which waits, may
                     by quota: its queue has borrowed GPUs (4 of H100), and who lent them may take them back
        Queue:       team-a: 3 jobs and replicas hold a place, 1 waits; share 0.125; its turn is next
                     H100 20 of 16 held, 4 borrowed, 2 available
                     Any 0 of 8 held, 8 available
                     14 kW reserved, 2800 W available
        """
    )


def test_explain_a_job_that_restarts_without_a_place(api: FakeApi, run: Run) -> None:
    why = samples.condition("Restarting", reason="WorkerLost", message="node gpu-node-1 is gone")
    tell(api, samples.queue(), samples.job(state="Restarting", conditions=[why], failure=samples.FAILURE))
    shown = run("explain", "digits").stdout
    assert "State:       Restarting (WorkerLost), since 15:00 UTC, 4m ago\n" in shown
    assert "Why:         node gpu-node-1 is gone\n" in shown
    assert "Place:" not in shown
    assert (
        "Failure:     BadInput: data.train: pvc://data/digits/train: no such directory (pod digits-g1-0"
        in shown
    )
    assert "WorkerLost  Nothing: the job is not at fault" in shown


def test_explain_a_run_that_nobody_may_end(api: FakeApi, run: Run) -> None:
    tell(api, samples.queue(), samples.job(**samples.running()))
    shown = run("explain", "digits").stdout
    assert (
        "By whom:     by priority: nobody that waits in its queue has more than 0\n"
        "             by quota: nobody, its queue has borrowed no GPUs\n"
    ) in shown
    assert "no checkpoint is known yet: without one it begins anew" in shown


def test_explain_says_only_what_it_could_read(api: FakeApi, run: Run) -> None:
    api.put(samples.job(**samples.running()))
    api.forbidden |= {"queues", "events"}
    api.forbidden_everywhere.add("trainingjobs")
    shown = run("explain", "digits").stdout
    assert "By whom:" not in shown
    assert "Queue:       team-a\n" in shown
    assert shown.endswith(
        "\nNot told: Queues, TrainingJobs outside namespace team-a, Events; you may not read them.\n"
    )


def test_explain_a_job_of_a_queue_that_does_not_exist(api: FakeApi, run: Run) -> None:
    blockers = [{"reason": "QueueNotFound", "message": 'there is no queue "team-a"; create it'}]
    api.put(samples.job(**samples.waiting(None, blockers, startsAt=None)))
    shown = run("explain", "digits").stdout
    assert "Queue:       team-a, which does not exist\n" in shown
    assert "QueueNotFound  Ask the platform team for Queue team-a" in shown


def test_explain_how_it_ended(api: FakeApi, run: Run) -> None:
    tell(
        api,
        samples.queue(),
        samples.job("good", **samples.succeeded(), completionTime="2026-11-22T15:03:30Z"),
    )
    assert run("explain", "good").stdout == page(
        f"""
        TrainingJob good in namespace team-a
        State:       Succeeded (TrainingSucceeded)
        Ended:       15:03 UTC, 30s ago
        How:         trained in 3m
        Output:      pvc://models/digits/versions/0123456789abcdef
                     {samples.DIGEST}
                     loss 0.05, validation_accuracy 0.987
        """
    )
    tell(api, samples.job("bad", **samples.failed()))
    assert run("explain", "bad").stdout == page(
        """
        TrainingJob bad in namespace team-a
        State:       Failed (BadInput)
        Ended:       15:00 UTC, 4m ago
        How:         TrainingJob bad failed: BadInput: data.train: pvc://data/digits/train: no such directory \
(pod digits-g1-0 on node gpu-node-1, rank 0, exit code 65)
                     | reading data
                     | no such directory

        What helps
          REASON    DO
          BadInput  Correct what the message names, then make it anew.
        """
    )


def test_explain_a_service(api: FakeApi, run: Run) -> None:
    conditions = [
        samples.condition("ModelReady", reason="ModelPinned"),
        samples.condition("GPUAvailable", False, "QuotaExceeded", "needs 2 GPUs, 1 is left"),
        samples.condition("Ready", False, "QuotaExceeded", "needs 2 GPUs, 1 is left"),
    ]
    tell(api, samples.queue(), samples.service("front", conditions=conditions, readyReplicas=1))
    shown = run("explain", "front").stdout
    assert shown.startswith(
        "InferenceService front in namespace team-a\nState:       Queued (QuotaExceeded), since"
    )
    assert "Replicas:    1 of 2 answer\n" in shown
    assert "  QuotaExceeded  needs 2 GPUs, 1 is left\n" in shown
    assert "Place:" not in shown
    assert run("explain", "infs/front").stdout == shown


def test_explain_for_programs(api: FakeApi, run: Run) -> None:
    tell(api, samples.branch("research"), granted(), samples.job(**samples.waiting()), first_in_line())
    told = json.loads(run("explain", "digits", "-o", "json").stdout)
    assert told["waiting"]["blockers"] == samples.BLOCKERS
    assert (told["waiting"]["position"], told["waiting"]["startsAt"]) == (3, "2026-11-22T15:20:00Z")
    assert told["waiting"]["ahead"][0]["name"] == "first"
    assert told["queue"]["gpus"][0] == {
        "model": "H100",
        "used": 20,
        "nominal": 16,
        "borrowed": 4,
        "available": 2,
        "borrowingLimit": None,
        "lendingLimit": None,
    }
    assert told["queue"]["turn"] == "next"
    assert (told["running"], told["ended"], told["preemptedBy"], told["unread"]) == (None, None, None, [])
    assert yaml.safe_load(run("explain", "digits", "-o", "yaml").stdout) == told


def test_the_quota_tree(api: FakeApi, run: Run) -> None:
    tell(
        api, samples.branch("research", share="0.2"), granted(), samples.branch("sales", waits=2, share="0.3")
    )
    tell(api, samples.branch("lost", "nowhere"))
    shown = run("queue")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == page(
        """
        NAME      MODEL  USED/NOMINAL  BORROWED  AVAILABLE  SHARE  WATTS        RUNNING  WAITING  TURN
        lost      -      -             -         -          -      -            0        0        -
        research  -      -             -         -          0.2    -            0        0        -
          team-a  H100   20/16         4         2          0.125  14kW/16.8kW  3        1        next
          team-a  Any    0/8           0         8          -      -            -        -        -
        sales     -      -             -         -          0.3    -            0        2        -

        Problems
          NAME  REASON               MESSAGE
          lost  QueueParentNotFound  its parent nowhere does not exist: until it does, lost neither borrows nor lends
        """
    )
    told = json.loads(run("queue", "-o", "json").stdout)["queues"]
    assert [(each["name"], each["depth"], each["turn"]) for each in told] == [
        ("lost", 0, ""),
        ("research", 0, ""),
        ("team-a", 1, "next"),
        ("sales", 0, ""),
    ]
    assert told[2]["watts"] == {"reserved": 14_000, "available": 2_800}


def test_every_row_of_the_tree_has_as_many_cells_as_there_are_columns(api: FakeApi, run: Run) -> None:
    tell(api, samples.branch("research"), granted(), samples.queue("plain"))
    rows = run("queue", "--no-headers").stdout.splitlines()
    assert [len(row.split()) for row in rows] == [10] * 5


def test_the_tree_without_queues(run: Run) -> None:
    shown = run("queue")
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", "There are no Queues.\n")


def test_one_queue_with_its_line(api: FakeApi, run: Run) -> None:
    tell(
        api,
        samples.branch("hall"),
        samples.branch("research", "hall", share="0"),
        samples.branch("trials", "team-a"),
    )
    body = granted(minimumRunSeconds=600, weight=2)
    body["spec"]["gpus"][0] |= {"borrowingLimit": 8, "lendingLimit": 0}
    tell(api, body, samples.job(**samples.waiting(2)), first_in_line())
    assert run("queue", "team-a").stdout == page(
        """
        Queue team-a, beneath hall > research
        GPUs:        H100 20 of 16 held, 4 borrowed, 2 available, may borrow 8, lends at most 0
                     Any 0 of 8 held, 8 available
        Watts:       14 kW of 16.8 kW used, 2800 W available
        Energy:      312 MJ of 500 MJ used, 188 MJ available, in 24 h
        Work:        3 jobs and replicas hold a place, 1 waits; share 0.125 by weight 2; its turn is next
        Beneath:     trials
        Namespaces:  team-a
        Minimum run: 10m, before a job may be ended for others

        Waiting
          PLACE  NAME    NAMESPACE  PRIORITY  AGE  NEEDS  STARTS  REASON
          1      first   team-b     9         4m   2x8    -       BorrowedAway
          2      digits  team-a     0         4m   2x1    15:20Z  BorrowedAway
        """
    )
    told = json.loads(run("queue", "queue/team-a", "-o", "json").stdout)
    assert [(each["name"], each["position"], each["startsAt"]) for each in told["line"]] == [
        ("first", 1, None),
        ("digits", 2, "2026-11-22T15:20:00Z"),
    ]
    assert (told["path"], told["complete"]) == (["hall", "research"], True)


def test_a_queue_with_trouble_and_jobs_that_may_not_be_read(api: FakeApi, run: Run) -> None:
    tell(api, samples.branch("lost", "nowhere"))
    api.forbidden_everywhere.add("trainingjobs")
    shown = run("queue", "lost").stdout
    assert "Problem:     QueueParentNotFound: its parent nowhere does not exist" in shown
    assert "GPUs:        none of its own: it uses what the queues above it have" in shown
    assert shown.endswith("\nNot told: jobs of other namespaces; you may not read them.\n")


def test_a_long_line_is_cut_and_says_by_how_much(api: FakeApi, run: Run) -> None:
    tell(api, samples.queue(), *(samples.job(f"j{number:02d}", **samples.waiting()) for number in range(53)))
    lines = run("queue", "team-a").stdout.splitlines()
    assert lines[-1] == "  and 3 more"
    assert sum(line.startswith("  3 ") for line in lines) == 50
