"""Small halls to ask the planner about, and its answers by key.

Requests have defaults that no case depends on: one worker with one GPU, one core and one GiB, in queue "team-a".
"""

from dataclasses import replace

from datahall.planning import (
    Admit,
    Evict,
    GangProgress,
    GangRequest,
    Limits,
    NodeState,
    Planner,
    QueueState,
    Wait,
)

GIB = 1 << 30
NOW = 100.0


def node(
    name,
    gpus=8,
    model="H100",
    *,
    cpu=96,
    memory=1024,
    rack=None,
    block=None,
    schedulable=True,
    watts=0,
    domain=None,
):
    return NodeState(
        name,
        model if gpus else "",
        gpus,
        cpu * 1000,
        memory * GIB,
        rack,
        block,
        schedulable=schedulable,
        gpu_watts=watts,
        power_domains=(domain,) if isinstance(domain, str) else domain or (),
    )


def gang(
    name,
    workers=1,
    gpus=1,
    *,
    models=(),
    cpu=1,
    memory=1,
    queue="team-a",
    priority=0,
    created=0.0,
    avoid=(),
    namespace="team-a",
    **more,
):
    return GangRequest(
        key=name,
        name=f"{namespace}/{name}",
        namespace=namespace,
        queue=queue,
        priority=priority,
        created_seconds=created,
        workers=workers,
        gpus=gpus,
        gpu_models=models,
        cpu_milli=cpu * 1000,
        memory_bytes=memory * GIB,
        avoid_nodes=frozenset(avoid),
        **more,
    )


def queue(name, quota=1000, *, parent="", borrow=None, lend=None, **more):
    """A queue; `quota` is GPUs of any model, or GPUs by model."""
    quotas = {"Any": quota} if isinstance(quota, int) else quota
    return QueueState(name, {model: Limits(n, borrow, lend) for model, n in quotas.items()}, parent, **more)


def hall(*nodes, quota=1000, queues=(), **more):
    """A planner with nodes, with queue "team-a" as told, and further queues."""
    planner = Planner()
    for each in nodes:
        planner.upsert_node(each)
    for each in (queue("team-a", quota, **more), *queues):
        planner.upsert_queue(each)
    return planner


def decide(planner, *gangs, at=NOW):
    """Submit, run one cycle, and give the decisions by key: node names by rank, the Wait, or the Evict."""
    for each in gangs:
        planner.submit(each)
    found = {}
    for decision in planner.cycle(at):
        assert decision.key not in found, "one decision about a gang in a cycle"
        match decision:
            case Admit(key, placements):
                assert [place.rank for place in placements] == list(range(len(placements)))
                assert planner.held(key) == placements
                found[key] = [place.node for place in placements]
            case Wait(key) | Evict(key):
                found[key] = decision
    return found


def reasons(decisions):
    """What was decided, in words: "admitted", "evicted for ...", or the reason of the wait."""

    def word(decision):
        match decision:
            case Wait():
                return decision.reason
            case Evict():
                return f"evicted for {decision.preemptor}"
        return "admitted"

    return {key: word(decision) for key, decision in decisions.items()}


def started(planner, key, *, at=0.0, saved=None, ends=None):
    """Tell that a held gang started, saved and will end at some time."""
    planner.progress(key, GangProgress(at, saved, ends))


def end_for(planner, wants, newcomers, *, order, at):
    """Look once: of those who end for a gang now, one goes after the other, while newcomers come.

    It starts when the last has gone, and not before: nobody was ended for nothing.
    """
    victims = [d.key for d in planner.cycle(at) if isinstance(d, Evict) and d.preemptor == wants]
    order.shuffle(victims)
    started = not victims
    for i, victim in enumerate(victims):
        assert not started, "it started before its last victim was gone: too many were ended"
        for j, newcomer in enumerate(newcomers):
            planner.submit(replace(newcomer, key=f"new-{i}-{j}"))
        planner.requeue(victim)
        decisions = planner.cycle(at + 1.0 + i)
        assert not any(isinstance(d, Evict) and d.preemptor == wants for d in decisions)
        started = any(isinstance(d, Admit) and d.key == wants for d in decisions)
    assert started, "others were ended for it, and it did not start"
