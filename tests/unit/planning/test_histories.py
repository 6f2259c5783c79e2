"""Whatever happens, in whatever order: the accounts are right, nothing is over-committed, nothing that fits waits.

The reference here is plain dictionaries of facts, written without the planner's arrays: it says what is free, and
builds a fresh planner from the facts to compare with the one that lived through the history.
"""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from datahall.planning import (
    Admit,
    GangRequest,
    NodeState,
    Placement,
    Planner,
    PodUsage,
    QueueState,
    WaitReason,
)

NODES = [f"n{i}" for i in range(6)]
QUEUES = ["qa", "qb"]
KEYS = [f"g{i}" for i in range(12)]
UIDS = [f"p{i}" for i in range(6)]
MODELS = ["H100", "A100"]

node_states = st.builds(
    NodeState,
    name=st.sampled_from(NODES),
    gpu_model=st.sampled_from([*MODELS, ""]),
    gpus=st.sampled_from([0, 4, 8]),
    cpu_milli=st.sampled_from([8000, 16000]),
    memory_bytes=st.sampled_from([64, 128]),
    rack=st.sampled_from([None, "r1", "r2"]),
    block=st.sampled_from([None, "b1"]),
    schedulable=st.sampled_from([True, True, True, False]),
)
pod_usages = st.builds(
    PodUsage,
    uid=st.sampled_from(UIDS),
    node=st.sampled_from([*NODES, ""]),
    gpus=st.integers(0, 3),
    cpu_milli=st.sampled_from([0, 500, 3000]),
    memory_bytes=st.sampled_from([0, 10]),
    queue=st.sampled_from([None, *QUEUES]),
)
queue_states = st.builds(
    QueueState,
    name=st.sampled_from(QUEUES),
    nominal=st.dictionaries(st.sampled_from([*MODELS, "Any"]), st.integers(0, 24), max_size=3),
    namespaces=st.sampled_from([frozenset(), frozenset({"ns1"}), frozenset({"ns1", "ns2"})]),
)


@st.composite
def gang_requests(draw):
    key = draw(st.sampled_from(KEYS))
    namespace = draw(st.sampled_from(["ns1", "ns2"]))
    return GangRequest(
        key=key,
        name=f"{namespace}/{key}",
        namespace=namespace,
        queue=draw(st.sampled_from([*QUEUES, QUEUES[0]])),
        priority=draw(st.integers(0, 1)),
        created_seconds=float(draw(st.integers(0, 3))),
        workers=draw(st.integers(1, 4)),
        gpus=draw(st.sampled_from([0, 1, 2, 4, 8])),
        gpu_models=tuple(draw(st.lists(st.sampled_from(MODELS), max_size=2, unique=True))),
        cpu_milli=draw(st.sampled_from([0, 1000, 4000])),
        memory_bytes=draw(st.sampled_from([0, 16])),
        avoid_nodes=draw(st.sampled_from([frozenset(), frozenset(NODES[:1])])),
    )


def entry_of(queue, model):
    if model in queue.nominal:
        return model
    return "Any" if "Any" in queue.nominal else None


class Facts:
    """What is so, by name, and what follows from it by plain counting."""

    def __init__(self):
        self.nodes = {}
        self.last_model = {}
        self.pods = {}
        self.queues = {}
        self.waiting = {}
        self.held = {}

    def forget_models(self):
        """The planner remembers the model of a node that is gone only while something is accounted on it."""
        in_use = {p.node for p in self.pods.values()} | {
            w.node for _, places in self.held.values() for w in places
        }
        for name in list(self.last_model):
            if name not in self.nodes and name not in in_use:
                del self.last_model[name]

    def used_on(self, name, *, gangs=True):
        used = [0, 0, 0]
        for pod in self.pods.values():
            if pod.node == name:
                used = [used[0] + pod.gpus, used[1] + pod.cpu_milli, used[2] + pod.memory_bytes]
        for gang, places in self.held.values() if gangs else ():
            here = sum(place.node == name for place in places)
            used = [
                used[0] + here * gang.gpus,
                used[1] + here * gang.cpu_milli,
                used[2] + here * gang.memory_bytes,
            ]
        return used

    def free_on(self, node):
        used = self.used_on(node.name)
        return node.gpus - used[0], node.cpu_milli - used[1], node.memory_bytes - used[2]

    def usage(self, queue):
        used = {}
        for pod in self.pods.values():
            if pod.queue == queue and pod.gpus:
                model = self.last_model.get(pod.node, "")
                used[model] = used.get(model, 0) + pod.gpus
        for gang, places in self.held.values():
            if gang.queue == queue and gang.gpus:
                for place in places:
                    used[place.gpu_model] = used.get(place.gpu_model, 0) + gang.gpus
        return used

    def room(self, queue, entry):
        used = self.usage(queue.name)
        return queue.nominal[entry] - sum(n for model, n in used.items() if entry_of(queue, model) == entry)

    def models_with_quota(self, gang):
        if gang.gpus == 0:
            return [None]
        queue = self.queues[gang.queue]
        models = gang.gpu_models or sorted({n.gpu_model for n in self.nodes.values() if n.gpus})
        need = gang.workers * gang.gpus
        return [m for m in models if (e := entry_of(queue, m)) is not None and self.room(queue, e) >= need]

    def fits(self, gang):
        """Whether the gang fits now, whole, on one model, within quota: by trying."""
        return any(
            self.workers_that_fit(gang, model) >= gang.workers for model in self.models_with_quota(gang)
        )

    def workers_that_fit(self, gang, model):
        count = 0
        for node in self.nodes.values():
            if node.schedulable and node.name not in gang.avoid_nodes and model in (None, node.gpu_model):
                free = self.free_on(node)
                need = (gang.gpus, gang.cpu_milli, gang.memory_bytes)
                per_node = [free[i] // need[i] for i in range(3) if need[i]]
                count += max(0, min([*per_node, gang.workers]))
        return count

    def rebuilt(self):
        planner = Planner()
        for key in sorted(self.waiting, reverse=True):
            planner.submit(self.waiting[key])
        for gang, places in self.held.values():
            planner.hold(gang, places)
        for pod in reversed(list(self.pods.values())):
            planner.upsert_pod(pod)
        for name, model in sorted(self.last_model.items()):
            planner.upsert_node(self.nodes.get(name) or NodeState(name, model, 1, 1, 1))
            if name not in self.nodes:
                planner.remove_node(name)
        for queue in self.queues.values():
            planner.upsert_queue(queue)
        return planner


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.facts = Facts()
        self.planner = Planner()

    @initialize(nodes=st.lists(node_states, max_size=6), queues=st.lists(queue_states, max_size=3))
    def start(self, nodes, queues):
        for node in nodes:
            self.upsert_node(node)
        for queue in queues:
            self.upsert_queue(queue)

    @rule(node=node_states)
    def upsert_node(self, node):
        self.planner.upsert_node(node)
        self.facts.nodes[node.name] = node
        self.facts.last_model[node.name] = node.gpu_model

    @rule(name=st.sampled_from(NODES))
    def remove_node(self, name):
        self.planner.remove_node(name)
        self.facts.nodes.pop(name, None)
        self.facts.forget_models()

    @rule(pod=pod_usages)
    def upsert_pod(self, pod):
        self.planner.upsert_pod(pod)
        self.facts.pods[pod.uid] = pod
        self.facts.forget_models()

    @rule(uid=st.sampled_from(UIDS))
    def remove_pod(self, uid):
        self.planner.remove_pod(uid)
        self.facts.pods.pop(uid, None)
        self.facts.forget_models()

    @rule(queue=queue_states)
    def upsert_queue(self, queue):
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
        nodes=st.lists(st.sampled_from(NODES), max_size=4),
        model=st.sampled_from(MODELS),
    )
    def hold(self, gang, nodes, model):
        places = tuple(Placement(rank, name, model) for rank, name in enumerate(nodes))
        self.planner.hold(gang, places)
        self.facts.waiting.pop(gang.key, None)
        self.facts.held[gang.key] = (gang, places)
        self.facts.forget_models()

    @rule(key=st.sampled_from(KEYS))
    def withdraw(self, key):
        self.planner.withdraw(key)
        self.facts.waiting.pop(key, None)
        self.facts.held.pop(key, None)
        self.facts.forget_models()

    @rule(key=st.sampled_from(KEYS))
    def requeue(self, key):
        self.planner.requeue(key)
        if key in self.facts.held:
            self.facts.waiting[key] = self.facts.held.pop(key)[0]
        self.facts.forget_models()

    @rule()
    def cycle(self):
        facts = self.facts
        anew = facts.rebuilt().cycle(5.0)
        decisions = self.planner.cycle(5.0)
        if decisions or not facts.waiting:
            assert decisions == anew, "the order of deltas must not matter"
        else:
            assert not any(isinstance(d, Admit) for d in anew), "said nothing although something could start"
        expected = sorted(facts.waiting.values(), key=lambda g: (-g.priority, g.created_seconds, g.key))
        assert not decisions or [d.key for d in decisions] == [g.key for g in expected]
        gangs = dict(facts.waiting)
        for decision in decisions:
            if isinstance(decision, Admit):
                self.check_admission(facts.waiting.pop(decision.key), decision.placements)
        first = True
        for decision in decisions:
            if not isinstance(decision, Admit):
                self.check_wait(gangs[decision.key], decision, first=first)
                first = first and decision.reason in (
                    WaitReason.QUEUE_NOT_FOUND,
                    WaitReason.NAMESPACE_NOT_ALLOWED,
                    WaitReason.NEVER_FITS,
                    WaitReason.QUOTA_TOO_SMALL,
                )
        again = facts.rebuilt().cycle(6.0)
        assert not any(isinstance(d, Admit) for d in again), "one cycle is enough"

    def check_admission(self, gang, places):
        """The next admission, in order, was right in the state of that moment."""
        facts = self.facts
        queue = facts.queues[gang.queue]
        assert not queue.namespaces or gang.namespace in queue.namespaces
        assert [p.rank for p in places] == list(range(gang.workers))
        assert len({p.gpu_model for p in places}) == 1
        facts.held[gang.key] = (gang, places)
        for place in places:
            node = facts.nodes[place.node]
            assert node.schedulable
            assert place.node not in gang.avoid_nodes
            assert place.gpu_model == (node.gpu_model if gang.gpus else "")
            assert not (gang.gpus and gang.gpu_models) or place.gpu_model in gang.gpu_models
            needs = (gang.gpus, gang.cpu_milli, gang.memory_bytes)
            assert all(free >= 0 for free, need in zip(facts.free_on(node), needs, strict=True) if need)
        if gang.gpus:
            assert facts.room(queue, entry_of(queue, places[0].gpu_model)) >= 0

    def check_wait(self, gang, wait, *, first):
        """At the end of the cycle a refusal is still true, and the head of the line waits only if it must."""
        facts = self.facts
        assert wait.message
        assert wait.position >= 1
        if wait.reason == WaitReason.QUEUE_NOT_FOUND:
            assert gang.queue not in facts.queues
            return
        if wait.reason == WaitReason.NAMESPACE_NOT_ALLOWED:
            assert gang.namespace not in facts.queues[gang.queue].namespaces
            return
        if wait.reason == WaitReason.QUOTA_EXCEEDED:
            assert gang.gpus
        if wait.reason == WaitReason.INSUFFICIENT_GPUS:
            assert gang.gpus
        if wait.reason == WaitReason.BEHIND_OTHERS:
            assert not first
        else:
            assert not facts.fits(gang), f"{gang} fits, and was told {wait}"

    @invariant()
    def the_accounts_equal_a_rebuild(self):
        rebuilt = self.facts.rebuilt()
        assert self.planner._nodes.rows() == rebuilt._nodes.rows()
        assert self.planner._quota.accounts() == rebuilt._quota.accounts()
        assert dict(self.planner._waiting._gangs) == dict(rebuilt._waiting._gangs)
        assert self.planner._waiting._order == sorted(rebuilt._waiting._order)
        for name, row in self.planner._nodes.rows().items():
            used = [row.pods[i] + row.gangs[i] for i in range(3)]
            assert used == self.facts.used_on(name)
        for queue in QUEUES:
            assert self.planner.queue_usage(queue) == self.facts.usage(queue)
            counts = self.planner.queue_counts(queue)
            assert counts.waiting == sum(g.queue == queue for g in self.facts.waiting.values())
            assert counts.held == sum(g.queue == queue for g, _ in self.facts.held.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def a_hall(nodes, queues):
    planner = Planner()
    for node in nodes:
        planner.upsert_node(replace(node, schedulable=True))
    for name, queue in zip(QUEUES, queues, strict=True):
        planner.upsert_queue(replace(queue, name=name, namespaces=frozenset()))
    return planner


@settings(max_examples=100, deadline=None)
@given(
    nodes=st.lists(node_states, min_size=1, max_size=6),
    queues=st.tuples(queue_states, queue_states),
    gangs=st.lists(gang_requests(), min_size=1, max_size=8, unique_by=lambda gang: gang.key),
    newcomers=st.lists(gang_requests(), min_size=1, max_size=4),
)
def test_nobody_starves_while_work_ends_and_newcomers_stream_in(nodes, queues, gangs, newcomers):
    planner, alone = a_hall(nodes, queues), a_hall(nodes, queues)
    hopeful = set()
    for gang in gangs:
        planner.submit(gang)
        alone.submit(gang)
        if isinstance(alone.cycle(0.0)[0], Admit):
            hopeful.add(gang.key)
        alone.withdraw(gang.key)
    running = []
    for turn in range(120):
        for i, newcomer in enumerate(newcomers):
            planner.submit(replace(newcomer, key=f"new-{turn}-{i}", priority=0, created_seconds=10.0 + turn))
        for decision in planner.cycle(10.0 + turn):
            if isinstance(decision, Admit):
                running.append(decision.key)
                hopeful.discard(decision.key)
        if not hopeful:
            return
        for key in running[:2]:
            planner.withdraw(key)
        del running[:2]
    pytest.fail(f"starved: {sorted(hopeful)}")
