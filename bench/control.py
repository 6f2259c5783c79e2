"""`make bench-control`: how fast the operator turns TrainingJobs into pods.

A control plane without kubelets (etcd, API server, scheduler, KWOK nodes with GPUs) and one operator process, all on
this machine. N TrainingJobs of two one-GPU workers are created as fast as the API server takes them; the clock runs
from the first create to the moment when every pod exists; so do the CPU seconds of each process. The rest is read from
the operator's own metrics and /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from datahall.kube import KubeClient
from datahall.kube.resources import NAMESPACES, PODS, QUEUES, TRAINING_JOBS, Resource
from local_cluster.api import ApiServer, Options
from local_cluster.gpu_nodes import Layout

ROOT = Path(__file__).resolve().parent.parent
CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts")
WORKERS = 2
CREATORS = 16
POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def job(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": f"job-{number:05d}", "namespace": "bench"},
        "spec": {
            "queue": "bench",
            "workers": {"count": WORKERS},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
            "task": "Custom",
            "container": {"image": "bench:none", "command": ["true"]},
        },
    }


async def run(jobs: int, kubeconfig: Path, probe_port: int, pids: dict[str, int]) -> dict[str, Any]:
    async with await KubeClient.connect(kubeconfig=str(kubeconfig), connections=CREATORS) as client:
        await wait_ready(probe_port)
        before = scrape(probe_port)
        cpu_before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        numbers = iter(range(jobs))
        started = time.perf_counter()
        await asyncio.gather(*(creator(client, numbers) for _ in range(CREATORS)))
        applied = time.perf_counter() - started
        say(f"{jobs} jobs applied in {applied:.1f} s")
        async with asyncio.timeout(600):
            await all_pods(client, jobs * WORKERS)
        seconds = time.perf_counter() - started
        cpu = {name: round(cpu_seconds(pid) - cpu_before[name], 1) for name, pid in pids.items()}
        say(f"all {jobs * WORKERS} pods created after {seconds:.1f} s; waiting for the last status")
        await settled(client, probe_port, jobs)
        after = scrape(probe_port)
    rss = max_rss_mb(pids["operator"])
    return {
        "jobs_per_second": round(jobs / seconds, 1),
        "event_to_status_p50_seconds": round(quantile(before, after, 0.50), 3),
        "event_to_status_p99_seconds": round(quantile(before, after, 0.99), 3),
        "writes_per_job": round((writes(after) - writes(before)) / jobs, 2),
        "rss_mb": round(rss),
        "jobs": jobs,
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1),
        "apply_seconds": round(applied, 1),
        "planner_seconds": round(
            value(after, "datahall_planner_cycle_seconds_sum")
            - value(before, "datahall_planner_cycle_seconds_sum"),
            3,
        ),
        "cpu_seconds": cpu,
    }


async def creator(client: KubeClient, numbers: Iterator[int]) -> None:
    for number in numbers:
        await client.create(TRAINING_JOBS, job(number), namespace="bench")


async def all_pods(client: KubeClient, wanted: int) -> None:
    """Until so many pods exist.

    They are counted, because one more watch of everything about them costs much more, and more often towards the end,
    because each count costs the API server as much as eight writes.
    """
    started = time.perf_counter()
    while True:
        path = PODS.path(namespace="bench")
        page = await client.request("GET", path, verb="list", resource="pods", params={"limit": "1"})
        found = len(page["items"]) + page["metadata"].get("remainingItemCount", 0)
        if found >= wanted:
            return
        expected = (time.perf_counter() - started) * (wanted - found) / max(found, 1)
        await asyncio.sleep(min(max(expected / 2, POLL_SECONDS), LONGEST_POLL_SECONDS))


async def settled(client: KubeClient, port: int, jobs: int) -> None:
    """Until every job's status says Running: the operator says when, the API server whether it is true."""
    async with asyncio.timeout(300):
        while value(scrape(port), 'datahall_jobs{state="Running"}') < jobs:  # noqa: ASYNC110 - as below
            await asyncio.sleep(1)
    listed = await client.list(TRAINING_JOBS, namespace="bench")
    running = sum(item["status"]["state"] == "Running" for item in listed["items"])
    if running != jobs:
        raise RuntimeError(f"{running} of {jobs} jobs run, and the operator said all")


async def wait_ready(port: int) -> None:
    async with asyncio.timeout(60):
        while value(scrape(port), "datahall_leader") != 1:  # noqa: ASYNC110 - another process is polled
            await asyncio.sleep(0.3)


def scrape(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(number) for name, _, number in found}


def value(metrics: dict[str, float], name: str) -> float:
    return metrics.get(name, 0.0)


def writes(metrics: dict[str, float]) -> float:
    """Writes to the API server that a job causes, beside its pods: lease renewals are the process's own."""
    pattern = re.compile(
        r'^datahall_api_requests_total\{.*resource="([^"]+)",verb="(create|patch|update|delete)"\}'
    )
    total = 0.0
    for name, number in metrics.items():
        found = pattern.match(name)
        if found and found.group(1) not in ("pods", "leases", "queues/status"):
            total += number
    return total


def quantile(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """A quantile of event-to-status over the run, interpolated within its histogram bucket."""
    pattern = re.compile(r'^datahall_event_to_status_seconds_bucket\{kind="TrainingJob",le="([^"]+)"\}')
    buckets = sorted(
        (float(found.group(1)), number - before.get(name, 0.0))
        for name, number in after.items()
        if (found := pattern.match(name))
    )
    total = buckets[-1][1]
    low, below = 0.0, 0.0
    for high, count in buckets:
        if count >= share * total:
            if high == float("inf"):
                return low
            return low + (high - low) * (share * total - below) / max(count - below, 1.0)
        low, below = high, count
    return low


def max_rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=250)
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of the operator there")
    arguments = parser.parse_args()
    say(f"starting a control plane with {arguments.nodes} nodes of 8 GPUs")
    options = Options(
        scheduler=True,
        layout=Layout(nodes=arguments.nodes),
        service_accounts=True,  # `prepare` makes the one that is needed: there is no controller manager
    )
    with ApiServer(options) as server:
        asyncio.run(prepare(server.kubeconfig, gpus=arguments.nodes * 8))
        probe_port = 18081
        environment = os.environ | {
            "KUBECONFIG": str(server.kubeconfig),
            "POD_NAME": "bench",
            "POD_NAMESPACE": "bench",
            "DATAHALL_REPORT_PORT": "18080",
            "DATAHALL_PROBE_PORT": str(probe_port),
            "DATAHALL_WRITES_PER_SECOND": "5000",
            "DATAHALL_LOG_LEVEL": "warning",
        }
        program = ["bench.profiled", arguments.profile] if arguments.profile else ["datahall.control"]
        operator = subprocess.Popen([sys.executable, "-m", *program], cwd=ROOT, env=environment)
        try:
            pids = {**server.pids, "operator": operator.pid, "bench": os.getpid()}
            result = asyncio.run(run(arguments.jobs, server.kubeconfig, probe_port, pids))
        finally:
            operator.terminate()
            operator.wait(timeout=30)
    print(json.dumps(result))
    return 0


async def prepare(kubeconfig: Path, *, gpus: int) -> None:
    async with await KubeClient.connect(kubeconfig=str(kubeconfig)) as client:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            await client.create(CRDS, yaml.safe_load(path.read_text()))
        await client.create(NAMESPACES, {"metadata": {"name": "bench"}})
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, namespace="bench")
        queue = {
            "apiVersion": "datahall.dev/v1alpha1",
            "kind": "Queue",
            "metadata": {"name": "bench"},
            "spec": {"gpus": [{"model": "Any", "nominal": gpus}]},
        }
        async with asyncio.timeout(60):
            while True:
                try:
                    await client.create(QUEUES, queue)
                    break
                except Exception as error:
                    say(f"waiting for the control plane: {error}")
                    await asyncio.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
