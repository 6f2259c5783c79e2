"""Who would move for whom, off the statuses of waiting jobs."""

from __future__ import annotations

from datahall.api.trainingjob import TrainingJob
from datahall.sdk import AsyncClient
from datahall.sdk.moving import planned_moves
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi

LATER = samples.MOVES | {"dueTime": "2026-11-22T15:09:00Z"}


def test_what_is_due_first_comes_first_and_those_for_whom_nobody_moves_are_left_out():
    jobs = [
        TrainingJob.from_json(body)
        for body in (
            samples.job("late", **samples.waiting(moves=LATER)),
            samples.job("soon", "team-b", **samples.waiting(moves=samples.MOVES)),
            samples.job("waits", **samples.waiting()),
            samples.job("runs", **samples.running()),
        )
    ]
    plans = planned_moves(jobs)
    assert [(plan.namespace, plan.name) for plan in plans] == [("team-b", "soon"), ("team-a", "late")]
    assert (plans[0].workers, plans[0].gpu_seconds, plans[0].due) == (2, 71, "2026-11-22T15:03:00Z")
    (move,) = plans[0].jobs
    assert (move.job, move.from_nodes, move.to_nodes) == ("team-b/small", ("node-1",), ("node-3",))


async def test_moves_are_those_of_a_namespace_or_of_all(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job("mine", **samples.waiting(moves=samples.MOVES)))
    api.put(samples.job("theirs", "team-b", **samples.waiting(moves=samples.MOVES)))
    assert [plan.name for plan in await client.moves()] == ["mine"]
    assert [plan.name for plan in await client.moves(all_namespaces=True)] == ["mine", "theirs"]
