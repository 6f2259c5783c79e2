"""Halls, gangs and wishes for reservations: GPUs and CPU on 100-CPU hosts, told in as few words as will do."""

import numpy as np

from datahall.planning import backfill
from datahall.planning.backfill import Need, RunningGang, RunningGangs
from datahall.planning.placing import Demand
from datahall.planning.topology import Level, Topology

NOW = 1000.0


def reserve(topology, available, gangs, wish, **options):
    return backfill.reserve(topology, available, RunningGangs.of(gangs, len(available)), wish, **options)


def racks(*sizes):
    """Hosts in racks of the given sizes, all in one block."""
    topology = Topology()
    for rack, size in enumerate(sizes):
        for _ in range(size):
            column = topology.count(Level.HOST)
            topology.put(column, f"n{column}", rack=f"r{rack}", block="b")
    return topology


def free(*gpus):
    """What is free: GPUs as told, 100 CPU each."""
    return np.array([gpus, [100] * len(gpus)], dtype=np.int64)


def running(name, end, gpus_on):
    """A gang that holds GPUs on columns."""
    columns = np.array(list(gpus_on), dtype=np.int64)
    return RunningGang(
        name, end, columns, np.array([list(gpus_on.values()), [0] * len(columns)], dtype=np.int64)
    )


def need(workers, gpus, nodes, level=None, required=False):
    return Need(Demand(workers, workers, level, required), np.array([gpus, 1]), np.ones(nodes, dtype=bool))
