"""Small halls for preemption, and a judge made of plain dictionaries that knows nothing of the search."""

from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from datahall.planning.candidates import Candidate, Candidates
from datahall.planning.preemption import Pools, Preemptor, plan


def gang(
    key,
    places,
    *,
    cost=100,
    priority=0,
    started=0.0,
    evictions=0,
    minimum_run=0.0,
    leaving=False,
):
    """A gang from {column: (GPUs, CPU)}, or {column: GPUs}."""
    held = {c: amount if isinstance(amount, tuple) else (amount, 0) for c, amount in places.items()}
    return Candidate(
        key=key,
        columns=np.array(list(held), dtype=np.int64),
        amounts=np.array(list(held.values()), dtype=np.int64).reshape(-1, 2).T,
        priority=priority,
        started_seconds=started,
        lost_gpu_seconds=float(cost),
        restart_gpu_seconds=0.0,
        evictions=evictions,
        minimum_run_seconds=minimum_run,
        leaving=leaving,
    )


def room(*gpus, cpu=1000):
    """Free amounts from free GPUs per column."""
    return np.array([gpus, [cpu] * len(gpus)], dtype=np.int64)


def asks(workers, gpus, *, columns, cpu=0, eligible=None, domain_of=None, most=None):
    return Preemptor(
        workers=workers,
        amounts=np.array([gpus, cpu], dtype=np.int64),
        eligible=np.ones(columns, dtype=np.bool_) if eligible is None else np.array(eligible, dtype=np.bool_),
        domain_of=None if domain_of is None else np.array(domain_of, dtype=np.int64),
        most_workers=None if most is None else np.array(most, dtype=np.int64),
    )


def planned(free, preemptor, gangs, allowed=None, **more):
    everyone = np.ones(len(gangs), dtype=np.bool_)
    return plan(
        free, preemptor, Candidates.of(gangs, 2), everyone if allowed is None else np.array(allowed), **more
    )


class Judge:
    """Says whether the preemptor fits with some gangs gone, by plain counting."""

    def __init__(self, free, preemptor, gangs, pools=None):
        self.free = free.T.tolist()
        self.preemptor = preemptor
        self.gangs = {g.key: g for g in gangs}
        self.order = [g.key for g in gangs]
        self.pools = pools

    def slots(self, gone=()):
        """Workers that fit per domain."""
        free = [list(amounts) for amounts in self.free]
        gone = {*gone, *(key for key, g in self.gangs.items() if g.leaving)}
        for key in gone:
            g = self.gangs[key]
            for place, column in enumerate(g.columns.tolist()):
                for r in (0, 1):
                    free[column][r] += int(g.amounts[r, place])
        per_domain = {}
        p = self.preemptor
        for column, amounts in enumerate(free):
            domain = 0 if p.domain_of is None else int(p.domain_of[column])
            if not p.eligible[column] or domain < 0:
                continue
            most = p.workers if p.most_workers is None else int(p.most_workers[column])
            fits = [amounts[r] // int(p.amounts[r]) for r in (0, 1) if p.amounts[r] > 0]
            per_domain[domain] = per_domain.get(domain, 0) + max(0, min([*fits, most, p.workers]))
        return per_domain

    def starts(self, gone=()):
        if self.pools is not None:
            gone_all = {*gone, *(key for key, g in self.gangs.items() if g.leaving)}
            for pool, short in enumerate(self.pools.short.tolist()):
                given = sum(int(self.pools.gives[self.order.index(key), pool]) for key in gone_all)
                if given < short:
                    return False
        return max(self.slots(gone).values(), default=0) >= self.preemptor.workers

    def key(self, gone):
        chosen = [self.gangs[key] for key in gone]
        return (
            sum(g.cost_gpu_seconds for g in chosen),
            len(chosen),
            sum(g.evictions for g in chosen),
            -sum(g.started_seconds for g in chosen),
        )

    def best(self, allowed):
        """The least key of all choices that start the preemptor; None if none does."""
        may = [key for key, ok in zip(self.order, allowed, strict=True) if ok and not self.gangs[key].leaving]
        if not self.starts(may):
            return None
        keys = sorted(
            (self.key(gone), gone) for size in range(len(may) + 1) for gone in combinations(may, size)
        )
        return next(key for key, gone in keys if self.starts(gone))


@st.composite
def halls(draw, most_gangs=8, most_columns=6):
    """Free amounts, a preemptor, gangs, who may be ended, and pools or None.

    Hypothesis chooses sizes and a seed. Drawing each number by itself is slow, and makes mostly empty halls where
    nothing has to end; here nodes are full, and most preemptors could start if enough gangs ended.
    """
    columns, count = draw(st.integers(1, most_columns)), draw(st.integers(0, most_gangs))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    free = np.stack([rng.integers(-1, 3, columns), rng.integers(0, 6, columns)])
    sizes = rng.choice([0, 1, 2, 4, 8], size=count, p=[0.05, 0.2, 0.25, 0.25, 0.25])
    gangs = []
    for i, gpus in enumerate(sizes.tolist()):
        where = rng.choice(columns, size=min(columns, int(rng.integers(0, 5))), replace=False).tolist()
        gangs.append(
            gang(
                f"g{i}",
                {c: (gpus, int(rng.integers(0, 6))) for c in where},
                cost=int(rng.choice([0, 1, 5, 5, 20, 70])),
                started=float(rng.integers(0, 3)),
                evictions=int(rng.integers(0, 3)),
                leaving=bool(rng.random() < 0.1),
            )
        )
    preemptor = asks(
        columns * 8,
        int(rng.choice([0, 1, 2, 4, 8])),
        columns=columns,
        cpu=int(rng.choice([0, 0, 1, 5])),
        eligible=rng.random(columns) < 0.9,
        domain_of=rng.choice([-1, 0, 0, 1, 2], size=columns) if rng.random() < 0.5 else None,
        most=rng.integers(0, 9, columns) if rng.random() < 0.2 else None,
    )
    at_most = Judge(free, preemptor, gangs).slots([g.key for g in gangs])
    best = max(at_most.values(), default=0)
    preemptor = replace(preemptor, workers=int(rng.integers(1, max(2, best + 1 + (rng.random() < 0.1)))))
    allowed = rng.random(count) < 0.9
    pools = None
    if rng.random() < 0.4:
        gives = rng.integers(0, 7, (count, 2))
        short = rng.integers(-2, np.maximum(gives[allowed].sum(axis=0), 0) + 1)
        pools = Pools(short, gives)
    return free, preemptor, gangs, allowed, pools
