"""The processes of bench-admission: control plane, operator, and what each of them costs.

The nodes are plain objects that say Ready: the bench plays their kubelets itself (`admission_kubelet`), so no KWOK runs
beside what is measured.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import yaml

from bench.admission_objects import Json, condition, knows, nodes
from bench.admission_sets import Nodes
from bench.control import CRDS, ROOT, SERVICE_ACCOUNTS, cpu_seconds, max_rss_mb, scrape, value
from datahall.kube import AlreadyExistsError, KubeClient, KubeError
from datahall.kube.resources import NAMESPACES, NODES, QUEUES, TRAINING_JOBS
from local_cluster.api import ApiServer, Options

PROBE_PORT = 18081
_WRITERS = 16


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


class Hall:
    """A running control plane with nodes and, once started, an operator."""

    def __init__(self, server: ApiServer, client: KubeClient, *, profile: str | None) -> None:
        self.server = server
        self.client = client
        self._profile = profile
        self._operator: subprocess.Popen[bytes] | None = None
        self._cpu_before: dict[str, float] = {}
        self._metrics_before: dict[str, float] = {}
        self.borrowing = False
        """Whether the installed Queue knows parents and borrowing."""
        self.topology = False
        """Whether the installed TrainingJob knows racks."""

    @staticmethod
    def options() -> Options:
        """What runs beside etcd and the API server: the scheduler that binds."""
        return Options(scheduler=True, service_accounts=True, memory_gib=8)

    async def install(self, of: Nodes) -> None:
        """Install the definitions and make the nodes."""
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            plural = body["spec"]["names"]["plural"]
            if plural == "queues":
                self.borrowing = knows(body, "spec", "parent")
            if plural == "trainingjobs":
                self.topology = knows(body, "spec", "topology")
            await self.client.create(CRDS, body)
        await in_parallel([self.client.create(NODES, node) for node in nodes(of)])
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.client.list(QUEUES)
                    await self.client.list(TRAINING_JOBS)
                    return
                except KubeError:
                    await asyncio.sleep(0.2)

    async def open_queue(self, body: Json) -> None:
        """Make a Queue with a namespace of its own, and the account that pods need there."""
        name = body["metadata"]["name"]
        await self.client.create(QUEUES, body)
        try:
            await self.client.create(NAMESPACES, {"metadata": {"name": name}})
            await self.client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, namespace=name)
        except AlreadyExistsError:
            return

    def start_operator(self, *, pods: bool = True) -> None:
        """Start the operator; `lead` waits for it.

        Args:
            pods: False for an operator that admits and makes no pods (`operator_without_pods`).
        """
        environment = os.environ | {
            "KUBECONFIG": str(self.server.kubeconfig),
            "POD_NAME": "bench",
            "POD_NAMESPACE": "default",
            "DATAHALL_REPORT_PORT": str(PROBE_PORT - 1),
            "DATAHALL_PROBE_PORT": str(PROBE_PORT),
            "DATAHALL_WRITES_PER_SECOND": "5000",
            "DATAHALL_LOG_LEVEL": "warning",
        }
        program = ["datahall.control"] if pods else ["bench.operator_without_pods"]
        if self._profile:
            program = ["bench.profiled", self._profile]
        command = [sys.executable, "-m", *program]
        # Its log goes where our progress goes: standard output is for the result alone.
        self._operator = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)

    async def lead(self) -> None:
        """Until the operator leads."""
        async with asyncio.timeout(60):
            while (await self.metrics()).get("datahall_leader") != 1:  # noqa: ASYNC110 - a process is polled
                await asyncio.sleep(0.1)

    def check_operator(self) -> None:
        """Notice that the operator has ended.

        Raises:
            RuntimeError: it has; its last words are on standard error.
        """
        if self._operator is not None and (code := self._operator.poll()) is not None:
            raise RuntimeError(f"the operator ended with status {code} while it was measured")

    async def tell_unfinished(self) -> None:
        """Say what the jobs that did not get through wait for, and for how many this is so."""
        listed = await self.client.list(TRAINING_JOBS)
        counts: Counter[str] = Counter()
        shown: dict[str, str] = {}
        for item in listed["items"]:
            status = item.get("status") or {}
            waits = condition(status, "Queued") or {}
            why = f"{status.get('state')} ({waits.get('reason')})"
            counts[why] += 1
            shown.setdefault(why, f"{item['metadata']['namespace']}/{item['metadata']['name']}: {waits}")
        for why, count in counts.most_common():
            say(f"{count} jobs {why}; such as {shown[why]}")

    def stop_operator(self) -> None:
        """End the operator, if one runs."""
        if self._operator is not None:
            self._operator.terminate()
            self._operator.wait(timeout=60)

    @property
    def pids(self) -> dict[str, int]:
        """Every process that takes part."""
        operator = {"operator": self._operator.pid} if self._operator is not None else {}
        return {**self.server.pids, **operator, "bench": os.getpid()}

    async def metrics(self) -> dict[str, float]:
        """The operator's own metrics; empty without an operator."""
        return await asyncio.to_thread(scrape, PROBE_PORT) if self._operator is not None else {}

    async def start_meter(self) -> None:
        """Costs count from now on."""
        self._cpu_before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        self._metrics_before = await self.metrics()

    async def costs(self, jobs: int) -> dict[str, Any]:
        """What the processes have cost since `start_meter`, and what the operator says of itself."""
        now = await self.metrics()
        before = self._metrics_before
        cpu = {
            name: round(cpu_seconds(pid) - self._cpu_before.get(name, 0.0), 1)
            for name, pid in self.pids.items()
        }
        found: dict[str, Any] = {
            "cpu_seconds": cpu,
            "rss_mb": {name: round(max_rss_mb(pid)) for name, pid in self.pids.items()},
        }
        if now:
            cycles = value(now, "datahall_planner_cycle_seconds_count") - value(
                before, "datahall_planner_cycle_seconds_count"
            )
            total = value(now, "datahall_planner_cycle_seconds_sum") - value(
                before, "datahall_planner_cycle_seconds_sum"
            )
            found["planner_seconds"] = round(total, 3)
            found["planner_cycles"] = round(cycles)
            found["operator_crashes"] = round(
                sum(
                    n
                    for name, n in now.items()
                    if name.startswith("datahall_reconcile_total") and "crash" in name
                )
            )
            found["requests_per_job"] = per_job(before, now, "datahall_api_requests_total", jobs)
            found["watch_events_per_job"] = per_job(before, now, "datahall_watch_events_total", jobs)
            found["reconciles_per_job"] = per_job(before, now, "datahall_reconcile_total", jobs)
        return found


def per_job(before: dict[str, float], after: dict[str, float], counter: str, jobs: int) -> dict[str, float]:
    """Increases of a counter per job, by its labels without the code of the answer; small change is left out."""
    sums: dict[str, float] = {}
    for name, number in after.items():
        head, brace, rest = name.partition("{")
        if head != counter or not brace:
            continue
        fields = dict(pair.split("=", 1) for pair in rest.rstrip("}").split(","))
        fields.pop("code", None)
        label = " ".join(text.strip('"') for _, text in sorted(fields.items(), reverse=True))
        sums[label] = sums.get(label, 0.0) + number - before.get(name, 0.0)
    each = {label: round(number / jobs, 2) for label, number in sums.items()}
    return {label: number for label, number in sorted(each.items()) if number}


async def in_parallel(calls: list[Any], *, at_once: int = _WRITERS) -> None:
    """Await all of them, so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(call: Any) -> None:
        async with gate:
            await call

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))


def now_text() -> str:
    """The time as a kubelet writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
