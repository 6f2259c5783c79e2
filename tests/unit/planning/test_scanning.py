"""However long the line: passing over kinds that quota refuses alike decides what asking each of them would decide."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning import Admit, Evict, Planner, Wait, WaitReason
from datahall.planning.cycle import HEADS
from datahall.planning.judging import Judge
from datahall.planning.verdicts import Refusal
from datahall.planning.waiting import WaitingLine
from tests.unit.planning.planners import gang, hall, node
from tests.unit.planning.test_histories import HISTORIES, gang_requests, node_states, queue_states

KEYS = [f"g{i:02}" for i in range(40)]

steps = st.one_of(
    st.tuples(st.just("submit"), st.lists(gang_requests(keys=KEYS), min_size=4, max_size=16)),
    st.tuples(st.just("withdraw"), st.sampled_from(KEYS)),
    st.tuples(st.just("requeue"), st.sampled_from(KEYS)),
    st.tuples(st.just("node"), node_states),
    st.tuples(st.just("queue"), queue_states),
    st.tuples(st.just("cycle"), st.sampled_from([1.0, 6.0, 70.0])),
)


def one_by_one(monkeypatch):
    """Let no refusal speak for others: each kind is looked at."""
    monkeypatch.setattr(Refusal, "is_for_all_alike", property(lambda self: False))


def played(nodes, queues, history):
    """What a planner decides, cycle by cycle: starts, ends, whom it tells what, and why everyone waits."""
    planner, now = Planner(), 1000.0
    for state in nodes:
        planner.upsert_node(state)
    for state in queues:
        planner.upsert_queue(state if state.parent != state.name else replace(state, parent=""))
    for what, given_ in [*history, ("cycle", 20.0)]:
        match what:
            case "submit":
                for each in given_:
                    planner.submit(each)
            case "withdraw":
                planner.withdraw(given_)
            case "requeue":
                planner.requeue(given_)
            case "node":
                planner.upsert_node(given_ if given_.gpus else replace(given_, gpu_model="", gpu_watts=0))
            case "queue":
                planner.upsert_queue(given_ if given_.parent != given_.name else replace(given_, parent=""))
            case "cycle":
                now += given_
                decisions = planner.cycle(now)
                waits = {key: planner.waiting(key) for key in KEYS}
                yield (
                    [decision for decision in decisions if isinstance(decision, Admit | Evict)],
                    sorted((d.key, d.reason) for d in decisions if isinstance(d, Wait)),
                    {key: (wait.reason, wait.position) for key, wait in waits.items() if wait is not None},
                )


@settings(max_examples=max(50, HISTORIES // 4))
@given(
    nodes=st.lists(node_states, min_size=1, max_size=6),
    queues=st.lists(queue_states, min_size=1, max_size=4),
    history=st.lists(steps, min_size=2, max_size=12),
)
def test_whoever_is_passed_over_would_have_been_refused(nodes, queues, history):
    nodes = [
        replace(n, gpu_model=n.gpu_model if n.gpus else "", gpu_watts=n.gpu_watts * bool(n.gpus))
        for n in nodes
    ]
    passing = list(played(nodes, queues, history))
    with pytest.MonkeyPatch.context() as monkeypatch:
        one_by_one(monkeypatch)
        asking = list(played(nodes, queues, history))
    assert passing == asking


@pytest.fixture
def judged(monkeypatch):
    """The kinds that were judged, as they are."""
    seen = []
    judge = Judge.judge
    monkeypatch.setattr(
        Judge,
        "judge",
        lambda self, kind, *args, **more: (seen.append(kind), judge(self, kind, *args, **more))[1],
    )
    return seen


def long_line(planner, *, gangs=300):
    """Gangs of which no two are alike, behind one that holds all there is."""
    planner.submit(gang("first", gpus=8))
    (admit,) = planner.cycle(0.0)
    assert isinstance(admit, Admit)
    for i in range(gangs):
        planner.submit(gang(f"j{i:03}", gpus=8, memory=1 + i, created=100.0 + i))
    return planner


class TestALongLine:
    def test_costs_no_more_than_its_beginning(self, judged):
        planner = long_line(hall(node("n"), quota={"Any": 8}))
        planner.cycle(100.0)
        assert len(judged) <= HEADS + 4

    def test_is_told_as_a_whole_and_once(self):
        planner = long_line(hall(node("n"), quota={"Any": 8}))
        told = planner.cycle(100.0)
        assert sorted(wait.key for wait in told) == [f"j{i:03}" for i in range(300)]
        assert {wait.reason for wait in told[HEADS:]} == {WaitReason.BEHIND_OTHERS}
        planner.submit(gang("late", gpus=8, created=1000.0))
        assert [wait.key for wait in planner.cycle(101.0)] == ["late"]

    def test_everyone_in_it_can_ask_why_and_where(self):
        planner = long_line(hall(node("n"), quota={"Any": 8}))
        planner.cycle(100.0)
        wait = planner.waiting("j250")
        assert (wait.reason, wait.position) == (WaitReason.BEHIND_OTHERS, 251)
        assert (
            wait.message
            == "needs 8 GPUs; what is left of the quota of queue team-a is kept for team-a/j000 "
            + ("(needs 8 GPUs), ahead of it")
        )

    def test_who_came_since_is_not_examined_yet(self):
        planner = long_line(hall(node("n"), quota={"Any": 8}))
        planner.cycle(100.0)
        planner.submit(gang("late", gpus=8, cpu=9, created=1000.0))
        assert planner.waiting("late") is None

    def test_each_that_never_fits_is_told_what_it_asked_for(self, judged):
        planner = hall(node("n"), quota={"Any": 100})
        for i in range(50):
            planner.submit(gang(f"j{i:02}", gpus=8, cpu=100 + i, created=float(i)))
        planner.cycle(0.0)
        assert len(judged) <= HEADS + 1
        assert "with 149 CPU" in planner.waiting("j49").message


class Turning:
    """Traits of shapes that change with the version."""

    def __init__(self, version):
        self.version = version

    def __call__(self, shape):
        return (shape.cpu_milli // 1000 + self.version) % 3


@given(
    gangs=st.lists(gang_requests(keys=KEYS), max_size=60),
    gone=st.lists(st.sampled_from(KEYS), max_size=30),
)
def test_the_line_is_in_order_whoever_comes_and_goes(gangs, gone):
    line, facts = WaitingLine(), {}
    for number, each in enumerate(gangs):
        line.add(each)
        facts[each.key] = each
        if number < len(gone):
            line.remove(gone[number])
            facts.pop(gone[number], None)
        line.group_up(Turning(number // 3), number // 3)
    for name in {each.queue for each in facts.values()}:
        mine = sorted(
            (g for g in facts.values() if g.queue == name),
            key=lambda g: (-g.priority, g.created_seconds, g.key),
        )
        assert [line.position(each.key) for each in mine] == list(range(1, len(mine) + 1))
        kinds = list(line.kinds(name))
        assert sorted(place[2] for kind in kinds for place in kind.line) == sorted(each.key for each in mine)
        assert sorted(place for group in line.groups(name) for place in group.order) == sorted(
            kind.line[0] for kind in kinds
        )
        assert line.count(name) == len(mine)
