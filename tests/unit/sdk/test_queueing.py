"""The quota tree as people see it: its order, whose turn it is, what is wrong with it, and who stands in line."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.planning.queues.spec import QueueSpec
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import MissingParent, ParentsInCircle
from datahall.planning.types import GangRequest
from datahall.planning.waiting import WaitingLine
from datahall.sdk import AsyncClient, NotFoundError, Turn
from datahall.sdk.queueing import ModelUse, line_of, tree_of
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi
from tests.unit.sdk.samples import branch


def tree(*bodies: samples.Json) -> dict[str, Any]:
    return {each.name: each for each in tree_of(Queue.from_json(body) for body in bodies)}


def test_each_queue_is_followed_by_those_beneath_it_and_neighbours_go_by_name() -> None:
    shown = tree(
        branch("vision", "research"),
        branch("sales"),
        branch("speech", "research"),
        branch("research"),
        branch("asr", "speech"),
    )
    assert [(name, each.depth) for name, each in shown.items()] == [
        ("research", 0),
        ("speech", 1),
        ("asr", 2),
        ("vision", 1),
        ("sales", 0),
    ]


def test_a_queue_without_its_parent_stands_at_the_top_and_says_so() -> None:
    shown = tree(branch("lost", "nowhere"), branch("child", "lost"))
    assert [(each.name, each.depth, each.parent) for each in shown.values()] == [
        ("lost", 0, "nowhere"),
        ("child", 1, "lost"),
    ]
    assert (shown["lost"].reason, shown["lost"].trouble) == (
        "QueueParentNotFound",
        "its parent nowhere does not exist: until it does, lost neither borrows nor lends",
    )
    assert shown["child"].reason == ""


def test_each_queue_of_a_circle_stands_at_the_top_and_shows_the_circle() -> None:
    shown = tree(branch("a", "c"), branch("b", "a"), branch("c", "b"), branch("under", "b"))
    assert [(each.name, each.depth) for each in shown.values()] == [
        ("a", 0),
        ("b", 0),
        ("under", 1),
        ("c", 0),
    ]
    assert {name for name, each in shown.items() if each.reason == "QueueParentsInCircle"} == {"a", "b", "c"}
    assert shown["a"].trouble.startswith("its parents go in a circle (a -> c -> b -> a)")


def test_what_the_operator_finds_wrong_is_shown_and_its_word_on_parents_yields_to_what_is_there() -> None:
    over, mended = branch("over"), branch("mended")
    over["status"]["conditions"] = [
        samples.condition("Ready", reason="QueueOvercommitted", message="Any: 9 of 8")
    ]
    mended["status"]["conditions"] = [
        samples.condition("Ready", reason="QueueParentNotFound", message="none")
    ]
    shown = tree(over, mended)
    assert (shown["over"].reason, shown["over"].trouble) == ("QueueOvercommitted", "Any: 9 of 8")
    assert (shown["mended"].reason, shown["mended"].trouble) == ("", "")


@st.composite
def forests(draw: st.DrawFn) -> dict[str, str | None]:
    """Names with parents: other names, names that do not exist, or none."""
    names = [f"q{number}" for number in range(draw(st.integers(1, 7)))]
    parents = st.one_of(st.none(), st.sampled_from([*names, "missing"]))
    found = {name: draw(parents) for name in names}
    return {name: None if parent == name else parent for name, parent in found.items()}


@given(forests())
def test_the_tree_is_the_planners_own(forest: dict[str, str | None]) -> None:
    planner = QueueTree()
    for name, parent in forest.items():
        planner.upsert(QueueSpec(name, parent=parent or ""))
    shown = tree(*(branch(name, parent) for name, parent in forest.items()))
    assert set(shown) == set(forest)
    names, depths = list(shown), [each.depth for each in shown.values()]
    for place, name in enumerate(names):
        above = [names[i] for i in range(place) if depths[i] == depths[place] - 1]
        assert (above[-1] if depths[place] else None) == planner.parent(name)
        trouble = planner.trouble(name)
        expected = {MissingParent: "QueueParentNotFound", ParentsInCircle: "QueueParentsInCircle"}
        assert shown[name].reason == ("" if trouble is None else expected[type(trouble)])


TURNS = [
    ("nobody waits", [branch("a", share="0"), branch("b", share="0.1")], {}),
    (
        "the smaller share",
        [branch("a", waits=1, share="0.2"), branch("b", waits=9, share="0.1")],
        {"b": "next"},
    ),
    ("only those that wait", [branch("a", waits=1, share="0.2"), branch("b", share="0")], {"a": "next"}),
    ("alone, a share is not needed", [branch("a", waits=1), branch("b")], {"a": "next"}),
    (
        "equal",
        [branch("a", waits=1, share="0.10"), branch("b", waits=1, share="1e-1")],
        {"a": "tied", "b": "tied"},
    ),
    ("not known", [branch("a", waits=1), branch("b", waits=1, share="0")], {"a": "tied", "b": "tied"}),
    (
        "down the tree: the department first, then its teams",
        [
            branch("big", share="0.3"),
            branch("big-team", "big", waits=1, share="0"),
            branch("small", share="0.2"),
            branch("small-one", "small", waits=1, share="0.9"),
            branch("small-two", "small", waits=1, share="0.8"),
        ],
        {"small-two": "next"},
    ),
    (
        "a department's own jobs, beside those of its teams",
        [branch("dep", waits=1, share="0"), branch("team", "dep", waits=1, share="0")],
        {"dep": "tied", "team": "tied"},
    ),
]


@pytest.mark.parametrize(
    ("queues", "expected"), [case[1:] for case in TURNS], ids=[case[0] for case in TURNS]
)
def test_whose_turn_it_is(queues: list[samples.Json], expected: dict[str, str]) -> None:
    shown = tree(*queues)
    assert {name: each.turn for name, each in shown.items() if each.turn is not Turn.NONE} == expected


def test_use_is_shown_per_entry_with_what_is_borrowed_and_left() -> None:
    body = samples.queue(
        used=[
            {"model": "H100", "used": 20, "nominal": 16, "borrowed": 4, "available": 2},
            {"model": "B200", "used": 3},
        ]
    )
    body["spec"]["gpus"][0] |= {"borrowingLimit": 8, "lendingLimit": 0}
    assert tree(body)["team-a"].gpus == (
        ModelUse("H100", 20, 16, 4, 2, 8, 0),
        ModelUse("Any", 0, 8, 0, None, None, None),
        ModelUse("B200", 3, 0, 3, None, None, None),
    )


def job(
    name: str, priority: int = 0, minute: int = 0, namespace: str = "team-a", **status: Any
) -> samples.Json:
    body = samples.job(name, namespace, **(status or samples.waiting()))
    body["spec"]["priority"] = priority
    body["metadata"] |= {"creationTimestamp": f"2026-11-22T14:{minute:02d}:00Z", "uid": f"uid-{name}"}
    return body


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)), max_size=8), st.randoms())
def test_the_line_is_in_the_planners_own_order(stands: list[tuple[int, int]], shuffle: random.Random) -> None:
    jobs = [
        TrainingJob.from_json(job(f"j{n}", priority, minute)) for n, (priority, minute) in enumerate(stands)
    ]
    planner = WaitingLine()
    for each, (priority, minute) in zip(jobs, stands, strict=True):
        key = each.metadata.uid
        planner.add(GangRequest(key, key, "team-a", "team-a", priority, 60.0 * minute, 1, 1, (), 0, 0))
    shuffle.shuffle(jobs)
    names = {each.metadata.name: each.metadata.uid for each in jobs}
    assert [planner.position(names[each.name]) for each in line_of(jobs, "team-a")] == [
        place + 1 for place in range(len(jobs))
    ]


def test_who_stands_in_no_line_comes_last_whatever_its_priority() -> None:
    stuck = samples.waiting(None, [{"reason": "ClaimNotFound", "message": "no claim data"}])
    bodies = [
        job("stuck", 100, **stuck),
        job("late", minute=5),
        job("early"),
        job("runs", **samples.running()),
    ]
    other = job("other")
    other["spec"]["queue"] = "elsewhere"
    line = line_of([TrainingJob.from_json(body) for body in [*bodies, other]], "team-a")
    assert [(each.name, each.position, each.reason) for each in line] == [
        ("early", 3, "BorrowedAway"),
        ("late", 3, "BorrowedAway"),
        ("stuck", None, "ClaimNotFound"),
    ]


def test_a_status_from_before_the_planner_told_more_still_has_its_condition() -> None:
    (entry,) = line_of([TrainingJob.from_json(job("old", **samples.queued()))], "team-a")
    assert (entry.reason, entry.message, entry.position, entry.since) == (
        "QuotaExceeded",
        samples.WAITS,
        None,
        None,
    )


async def test_one_queue_in_detail(api: FakeApi, client: AsyncClient) -> None:
    api.put(branch("hall"))
    api.put(branch("research", "hall"))
    body = samples.queue()
    body["spec"] |= {"parent": "research", "minimumRunSeconds": 600}
    api.put(body)
    api.put(branch("trials", "team-a"))
    api.put(job("second", minute=9))
    api.put(job("first", priority=5, minute=10, namespace="team-b"))
    found = await client.queue_line("team-a")
    assert (found.path, found.beneath, found.complete) == (("hall", "research"), ("trials",), True)
    assert (found.queue.depth, found.namespaces, found.minimum_run_seconds) == (2, ("team-a",), 600)
    assert [(each.namespace, each.name) for each in found.line] == [("team-b", "first"), ("team-a", "second")]
    assert [each.name for each in await client.queue_tree()] == ["hall", "research", "team-a", "trials"]


async def test_who_may_read_one_namespace_is_told_that_the_line_is_not_whole(
    api: FakeApi, client: AsyncClient
) -> None:
    api.put(samples.queue())
    api.put(job("mine"))
    api.put(job("theirs", namespace="team-b"))
    api.forbidden_everywhere.add("trainingjobs")
    found = await client.queue_line("team-a")
    assert ([each.name for each in found.line], found.complete) == (["mine"], False)


async def test_a_queue_that_does_not_exist(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.queue_line("none")
