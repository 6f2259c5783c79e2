"""Whatever happens, in whatever order: the accounts are right, nothing is over-committed, nothing that fits waits.

The reference (`facts`) is plain dictionaries, written without the planner's arrays: it says what is free, and builds a
fresh planner from the facts to compare with the one that lived through the history. `DATAHALL_HISTORIES` sets how many
histories are made.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from datahall.planning import (
    Admit,
    Evict,
    EvictCause,
    GangProgress,
    GangRequest,
    Limits,
    NodeState,
    Placement,
    Planner,
    PodUsage,
    QueueState,
    Wait,
    WaitReason,
)
from datahall.planning.types import Level
from tests.unit.planning.facts import Facts, least, shares
from tests.unit.planning.planners import end_for

HISTORIES = int(os.environ.get("DATAHALL_HISTORIES", "150"))

NODES = [f"n{i}" for i in range(6)]
QUEUES = ["qa", "qb", "qroot"]
KEYS = [f"g{i}" for i in range(12)]
UIDS = [f"p{i}" for i in range(6)]
MODELS = ["H100", "A100"]

node_states = st.builds(
    NodeState,
    name=st.sampled_from(NODES),
    gpu_model=st.sampled_from(MODELS),
    gpus=st.sampled_from([0, 4, 8, 8]),
    cpu_milli=st.sampled_from([8000, 16000]),
    memory_bytes=st.sampled_from([64, 128]),
    rack=st.sampled_from([None, "r1", "r2"]),
    block=st.sampled_from([None, "b1"]),
    schedulable=st.sampled_from([True, True, True, False]),
    gpu_watts=st.sampled_from([0, 700]),
)
pod_usages = st.builds(
    PodUsage,
    uid=st.sampled_from(UIDS),
    node=st.sampled_from(NODES),
    gpus=st.integers(0, 3),
    cpu_milli=st.sampled_from([0, 500, 3000]),
    memory_bytes=st.sampled_from([0, 10]),
)
limits = st.builds(
    Limits,
    nominal=st.integers(0, 24),
    borrowing_limit=st.sampled_from([None, None, 0, 4]),
    lending_limit=st.sampled_from([None, None, 0, 4]),
)
queue_states = st.builds(
    QueueState,
    name=st.sampled_from(QUEUES),
    gpus=st.dictionaries(st.sampled_from([*MODELS, "Any"]), limits, max_size=3),
    parent=st.sampled_from(["", "", "qroot", "qa", "missing"]),
    weight=st.sampled_from([1.0, 3.0]),
    watts=st.sampled_from([None, None, None, Limits(10_000)]),
    namespaces=st.sampled_from([frozenset(), frozenset(), frozenset({"ns1"})]),
    minimum_run_seconds=st.sampled_from([0.0, 0.0, 30.0]),
)


@st.composite
def gang_requests(draw, keys=KEYS):
    key = draw(st.sampled_from(keys))
    namespace = draw(st.sampled_from(["ns1", "ns2"]))
    workers = draw(st.integers(1, 4))
    gpus = draw(st.sampled_from([0, 1, 1, 2, 4, 8]))
    level = draw(st.sampled_from([None, None, Level.HOST, Level.RACK, Level.BLOCK]))
    return GangRequest(
        key=key,
        name=f"{namespace}/{key}",
        namespace=namespace,
        queue=draw(st.sampled_from([*QUEUES, QUEUES[0]])),
        priority=draw(st.integers(0, 2)),
        created_seconds=float(draw(st.integers(0, 3))),
        workers=workers,
        gpus=gpus,
        gpu_models=tuple(draw(st.lists(st.sampled_from(MODELS), max_size=2, unique=True))),
        cpu_milli=draw(st.sampled_from([0, 1000, 4000])),
        memory_bytes=draw(st.sampled_from([0, 16])),
        min_workers=draw(st.sampled_from([None, None, 1])),
        gpu_milli=draw(st.sampled_from([1000, 500, 300])) if gpus == 1 else 1000,
        level=level,
        required=level is not None and draw(st.booleans()),
        avoid_nodes=draw(st.sampled_from([frozenset(), frozenset(NODES[:1])])),
        preemptible=draw(st.sampled_from([True, True, False])),
        run_seconds=draw(st.sampled_from([None, None, 60.0])),
    )


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.facts = Facts()
        self.planner = Planner()
        self.now = 1000.0
        self.since = {}

    @initialize(nodes=st.lists(node_states, max_size=6), queues=st.lists(queue_states, max_size=3))
    def start(self, nodes, queues):
        for node in nodes:
            self.upsert_node(node)
        for queue in queues:
            self.upsert_queue(queue)

    @rule(node=node_states)
    def upsert_node(self, node):
        if not node.gpus:
            node = replace(node, gpu_model="", gpu_watts=0)
        self.planner.upsert_node(node)
        self.facts.nodes[node.name] = self.facts.last_state[node.name] = node

    @rule(name=st.sampled_from(NODES))
    def remove_node(self, name):
        self.planner.remove_node(name)
        self.facts.nodes.pop(name, None)
        self.facts.forget_nodes()

    @rule(pod=pod_usages)
    def upsert_pod(self, pod):
        self.planner.upsert_pod(pod)
        self.facts.pods[pod.uid] = pod
        self.facts.forget_nodes()

    @rule(uid=st.sampled_from(UIDS))
    def remove_pod(self, uid):
        self.planner.remove_pod(uid)
        self.facts.pods.pop(uid, None)
        self.facts.forget_nodes()

    @rule(queue=queue_states)
    def upsert_queue(self, queue):
        if queue.parent == queue.name:
            queue = replace(queue, parent="")
        self.planner.upsert_queue(queue)
        self.facts.queues[queue.name] = queue

    @rule(name=st.sampled_from(QUEUES))
    def remove_queue(self, name):
        self.planner.remove_queue(name)
        self.facts.queues.pop(name, None)

    @rule(gangs=st.lists(gang_requests(), min_size=1, max_size=5))
    def submit(self, gangs):
        for gang in gangs:
            self.planner.submit(gang)
            if gang.key not in self.facts.held:
                self.facts.waiting[gang.key] = gang

    @rule(
        gang=gang_requests(),
        nodes=st.lists(st.sampled_from(NODES), min_size=1, max_size=4),
        model=st.sampled_from(MODELS),
        leaving=st.sampled_from([False, False, True]),
    )
    def hold(self, gang, nodes, model, leaving):
        card = 0 if shares(gang) else None
        places = tuple(Placement(rank, name, model, card) for rank, name in enumerate(nodes))
        same = self.facts.held.get(gang.key) == (gang, places)
        self.planner.hold(gang, places, leaving=leaving)
        self.facts.waiting.pop(gang.key, None)
        if not same:
            self.facts.take(gang, places)
        if leaving:
            self.facts.leaving.add(gang.key)
        self.since.setdefault(gang.key, self.now)
        self.facts.forget_nodes()

    @rule(key=st.sampled_from(KEYS))
    def withdraw(self, key):
        self.planner.withdraw(key)
        self.facts.waiting.pop(key, None)
        self.facts.let_go(key)
        self.since.pop(key, None)
        self.facts.forget_nodes()

    @rule(key=st.sampled_from(KEYS))
    def requeue(self, key):
        self.planner.requeue(key)
        gang = self.facts.let_go(key)
        self.since.pop(key, None)
        if gang is not None:
            self.facts.waiting[key] = gang
        self.facts.forget_nodes()

    @rule(key=st.sampled_from(KEYS), end=st.sampled_from([None, 30.0, 500.0, -50.0]))
    def progress(self, key, end):
        started = self.since.get(key, self.now)
        told = GangProgress(started, end_seconds=None if end is None else self.now + end)
        self.planner.progress(key, told)

    @rule(seconds=st.sampled_from([1.0, 20.0, 90.0, -3600.0, 86_400.0]))
    def time_passes_or_the_clock_jumps(self, seconds):
        self.now = max(0.0, self.now + seconds)

    @rule()
    def cycle(self):
        facts = self.facts
        before = dict(facts.waiting)
        for decision in self.planner.cycle(self.now):
            match decision:
                case Admit(key, places):
                    self.check_admission(facts.waiting.pop(key), places)
                case Evict(key, preemptor, _, cause):
                    self.check_eviction(key, before.get(preemptor), cause)
                case Wait():
                    self.check_wait(facts.waiting[decision.key], decision)
        for key, gang in facts.waiting.items():
            wait = self.planner.waiting(key)
            assert wait is not None, "who waits can ask why"
            self.check_wait(gang, wait)
        if len(facts.waiting) == 1:
            (gang,) = facts.waiting.values()
            queue = facts.queues.get(gang.queue)
            if queue is not None and (not queue.namespaces or gang.namespace in queue.namespaces):
                assert not facts.fits(gang), "nobody is ahead of it, it fits, and it waits"

    def check_admission(self, gang, places):
        """The next admission was right in the state of that moment."""
        facts = self.facts
        queue = facts.queues[gang.queue]
        assert not queue.namespaces or gang.namespace in queue.namespaces
        assert [p.rank for p in places] == list(range(len(places)))
        assert least(gang) <= len(places) <= gang.workers
        assert len({p.gpu_model for p in places}) == 1
        model = places[0].gpu_model
        assert facts.within_quota(gang, model, len(places))
        if gang.required:
            assert len({facts.domain(facts.nodes[p.node], gang.level) for p in places}) == 1
        facts.take(gang, places)
        self.since[gang.key] = self.now
        for place in places:
            node = facts.nodes[place.node]
            assert node.schedulable
            assert place.node not in gang.avoid_nodes
            assert place.gpu_model == (node.gpu_model if gang.gpus else "")
            assert not (gang.gpus and gang.gpu_models) or place.gpu_model in gang.gpu_models
            needs = (gang.gpus, gang.cpu_milli, gang.memory_bytes)
            free = facts.free_on(node)
            if shares(gang):
                # A share in a GPU that is open already is fine on a node that shrank.
                assert facts.cards_on(node.name)[place.card] <= 1000
                assert free[0] >= 0 or facts.cards_on(node.name)[place.card] > gang.gpu_milli
                needs = (0, *needs[1:])
            assert all(amount >= 0 for amount, need in zip(free, needs, strict=True) if need)

    def check_eviction(self, key, preemptor, cause):
        """Whoever is ended may be, and there is a right to it."""
        facts = self.facts
        victim, places = facts.held[key]
        assert key not in facts.leaving
        assert victim.preemptible
        queue = facts.queues.get(victim.queue)
        assert queue is None or self.now - self.since[key] >= queue.minimum_run_seconds
        facts.leaving.add(key)
        if preemptor is None:
            assert cause is EvictCause.RESIZED
            assert len(places) < victim.workers
            return
        assert not facts.fits(preemptor), "nobody is ended for a gang that fits"
        if cause is EvictCause.MOVED:
            return  # it needs no right: room is held for its return
        if victim.queue == preemptor.queue:
            assert victim.priority < preemptor.priority
        else:
            tree = facts.tree()
            assert any(account.own > account.nominal for account in tree.accounts(victim.queue).values())

    def check_wait(self, gang, wait):
        """A refusal is true, and who waits for nothing but room has none."""
        facts = self.facts
        assert wait.message
        assert wait.position >= 1
        assert wait.blockers[0].message == wait.message
        if wait.reason == WaitReason.QUEUE_NOT_FOUND:
            assert gang.queue not in facts.queues
        elif wait.reason == WaitReason.NAMESPACE_NOT_ALLOWED:
            assert gang.namespace not in facts.queues[gang.queue].namespaces
        elif wait.reason in (WaitReason.BEHIND_OTHERS, WaitReason.RESERVED, WaitReason.MAKING_ROOM):
            assert len(facts.waiting) + len(facts.held) > 1
        elif not self.planner._holds.of and not any(
            # On one model it has no room, on the other it stands behind somebody.
            blocker.reason in (WaitReason.BEHIND_OTHERS, WaitReason.RESERVED)
            for blocker in wait.blockers
        ):
            assert not facts.fits(gang), f"{gang} fits, and was told {wait}"

    @invariant()
    def the_accounts_equal_a_rebuild(self):
        facts = self.facts
        rebuilt = facts.rebuilt()
        assert self.planner._books.hall.nodes.rows() == rebuilt._books.hall.nodes.rows()
        for name, row in self.planner._books.hall.nodes.rows().items():
            assert [row.pods[i] + row.gangs[i] for i in range(3)] == facts.used_on(name)
            assert dict(row.cards) == facts.cards_on(name)
        assert {g.key: g for g in self.planner._line} == facts.waiting
        tree, held_for = facts.tree(), self.planner._holds.of.values()
        for hold in held_for:
            tree.charge(hold.gang.queue, hold.charges, 1)
        for queue in QUEUES:
            spent = {"joules_per_day"}
            accounts = self.planner._books.tree.accounts(queue)
            assert {r: a for r, a in accounts.items() if r not in spent} == {
                r: a for r, a in tree.accounts(queue).items() if r not in spent
            }
            counts = self.planner.queue_counts(queue)
            assert counts.waiting == sum(g.queue == queue for g in facts.waiting.values())
            assert counts.held == sum(g.queue == queue for g, _ in facts.held.values())
        for key in facts.held:
            assert self.planner.is_leaving(key) == (key in facts.leaving)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=HISTORIES, stateful_step_count=25)


def a_hall(nodes, queues, *, may_borrow=True):
    planner = Planner()
    for node in nodes:
        planner.upsert_node(replace(node, schedulable=True))
    for name, queue in zip(QUEUES, queues, strict=False):
        gpus = (
            queue.gpus if may_borrow else {m: replace(of, borrowing_limit=0) for m, of in queue.gpus.items()}
        )
        planner.upsert_queue(
            replace(queue, name=name, gpus=gpus, parent="", namespaces=frozenset(), watts=None)
        )
    return planner


@settings(max_examples=HISTORIES)
@given(
    nodes=st.lists(node_states, min_size=1, max_size=6),
    queues=st.tuples(queue_states, queue_states, queue_states),
    gangs=st.lists(gang_requests(), min_size=1, max_size=8, unique_by=lambda gang: gang.key),
    newcomers=st.lists(gang_requests().filter(lambda gang: gang.gpus), min_size=1, max_size=4),
)
def test_nobody_starves_while_work_ends_and_newcomers_stream_in(nodes, queues, gangs, newcomers):
    """No newcomer has a higher priority; what runs ends in the order in which it started.

    This is of work within nominal quota: what has to borrow may wait for as long as others need what is their own.
    Newcomers ask for GPUs: CPUs alone are charged to no queue, and one that asks for nothing else stays ahead of one
    that has used a GPU (docs/scheduling.md, "Queues and turns").
    """
    planner, alone = a_hall(nodes, queues), a_hall(nodes, queues, may_borrow=False)
    hopeful = set()
    for gang in (replace(gang, priority=0) for gang in gangs):
        planner.submit(gang)
        alone.submit(gang)
        if any(isinstance(d, Admit) for d in alone.cycle(0.0)):
            hopeful.add(gang.key)
        alone.withdraw(gang.key)
    running = []
    for turn in range(150):
        now = 10.0 + 30 * turn
        for i, newcomer in enumerate(newcomers):
            planner.submit(replace(newcomer, key=f"new-{turn}-{i}", priority=0, created_seconds=now))
        for decision in planner.cycle(now):
            if isinstance(decision, Admit):
                running.append(decision.key)
                hopeful.discard(decision.key)
        if not hopeful:
            return
        for key in running[:2]:
            planner.withdraw(key)
        del running[:2]
    pytest.fail(f"starved: {sorted(hopeful)}")


@settings(max_examples=200)
@given(
    nodes=st.lists(node_states, min_size=1, max_size=5, unique_by=lambda node: node.name),
    queues=st.tuples(queue_states, queue_states, queue_states),
    running=st.lists(gang_requests(), min_size=1, max_size=8, unique_by=lambda gang: gang.key),
    wanting=gang_requests(keys=["wants"]),
    newcomers=st.lists(gang_requests(), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_nobody_ends_for_a_gang_that_does_not_start_then(nodes, queues, running, wanting, newcomers, order):
    planner = Planner()
    for node in nodes:
        planner.upsert_node(replace(node, schedulable=True))
    for name, queue in zip(QUEUES, queues, strict=True):
        parent = "" if name == "qroot" else "qroot"
        planner.upsert_queue(
            replace(queue, name=name, parent=parent, namespaces=frozenset(), minimum_run_seconds=0.0)
        )
    for gang in running:
        planner.submit(gang)
    planner.cycle(1000.0)
    for gang in running:
        if planner.is_waiting(gang.key) or planner.is_leaving(gang.key):
            planner.withdraw(gang.key)
    planner.submit(replace(wanting, priority=5))
    end_for(planner, "wants", [replace(each, priority=1) for each in newcomers], order=order, at=2000.0)
