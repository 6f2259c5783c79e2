"""`make bench-admission SET=NAME`: jobs admitted, bound and ended, on the sets that the peers publish.

A control plane with GPU nodes and one operator process, all on this machine, as in `bench.control`; the bench itself
creates the jobs and plays the kubelets. Lines of JSON on standard output: first what was measured here, then what the
peers have published, each with the number of cores. `admission_sets` has the sets, docs/benchmarks-admission.md says
what is the same as theirs and what is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

from bench import admission_kai, admission_queues
from bench.admission_hall import Hall, say
from bench.admission_sets import CONTROL, HALL_SETS, NAMES, QUEUE_SETS, HallSet, QueueSet
from datahall.kube import KubeClient
from local_cluster.api import ApiServer


def main() -> int:
    """Measure one set, or all controls."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", required=True, choices=[*NAMES, "control"], dest="name", metavar="SET")
    parser.add_argument("--scale", type=float, default=1.0, help="0.02 for a fiftieth of the jobs or nodes")
    parser.add_argument(
        "--control", action="store_true", help="the same pods by kube-scheduler alone, without the operator"
    )
    parser.add_argument(
        "--pods",
        action="store_true",
        help="Kueue's sets with real pods that kube-scheduler binds; theirs have none, and so have ours without this",
    )
    parser.add_argument(
        "--report-running",
        action="store_true",
        help="kubelets say Running before Succeeded also in sets whose jobs end within a second",
    )
    parser.add_argument("--timeout-seconds", type=float, default=1500.0)
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of the operator there")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale: {arguments.scale} is not above 0 and at most 1")
    names = CONTROL if arguments.name == "control" else (arguments.name,)
    control = arguments.control or arguments.name == "control"
    if control and (unplayable := set(names) - set(CONTROL)):
        parser.error(f"--control: {', '.join(unplayable)} needs quota; only {', '.join(CONTROL)} do not")
    if arguments.profile and arguments.name in QUEUE_SETS and not arguments.pods:
        parser.error("--profile: is of the whole operator; add --pods")
    complete = True
    for name in names:
        chosen: QueueSet | HallSet = QUEUE_SETS[name] if name in QUEUE_SETS else HALL_SETS[name]
        small = chosen.at(arguments.scale)
        result = measure(small, control=control, arguments=arguments)
        complete &= bool(result["complete"])
        head = {"set": name, "by": "kube-scheduler alone" if control else "datahall"}
        emit(head | {"cores": os.cpu_count(), "scale": arguments.scale} | result)
        for published in chosen.published if not control else ():
            line = {"set": name, "by": published.peer, "cores": published.cores, "where": published.where}
            emit(line | dict(published.figures))
    return 0 if complete else 1


def measure(of: QueueSet | HallSet, *, control: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """One set in a control plane of its own."""
    say(f"{of.name}: starting a control plane with {of.nodes.count} nodes of {of.nodes.gpus} GPUs")
    with ApiServer(Hall.options()) as server:
        return asyncio.run(_measure(server, of, control=control, arguments=arguments))


async def _measure(
    server: ApiServer, of: QueueSet | HallSet, *, control: bool, arguments: argparse.Namespace
) -> dict[str, Any]:
    async with await KubeClient.connect(kubeconfig=str(server.kubeconfig), connections=16) as client:
        hall = Hall(server, client, profile=arguments.profile)
        await hall.install(of.nodes)
        pods = control or arguments.pods or not isinstance(of, QueueSet)
        try:
            if not control and of.name not in admission_kai.OWN_START:
                hall.start_operator(pods=pods)
                await hall.lead()
            if isinstance(of, QueueSet):
                ends = admission_queues.Ends.BY_KUBELETS if pods else admission_queues.Ends.BY_RUNNER
                return await admission_queues.play(
                    hall,
                    of,
                    control=control,
                    ends=ends,
                    reports_running=arguments.report_running,
                    timeout_seconds=arguments.timeout_seconds,
                )
            return await admission_kai.play(
                hall, of, control=control, timeout_seconds=arguments.timeout_seconds
            )
        finally:
            hall.stop_operator()


def emit(line: dict[str, Any]) -> None:
    """One line of the result."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
