"""The Python client and the CLI against a real API server: its own schema, server-side apply, watches and errors."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datahall.cli.app import app
from datahall.kube import KubeClient
from datahall.kube.resources import EVENTS, INFERENCE_SERVICES, PODS, QUEUES, TRAINING_JOBS
from datahall.sdk import (
    AsyncClient,
    Client,
    DeniedError,
    JobFailed,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    TrainingJob,
    Turn,
    UnreachableError,
    WaitTimeout,
)
from local_cluster import binaries
from local_cluster.api import ApiServer
from tests.unit.sdk import samples

pytestmark = pytest.mark.apiserver

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="module")
def crds(api_server: ApiServer) -> None:
    """Installed and served: the API server takes a moment after it has accepted them."""
    kubectl = [str(binaries.ensure("kubectl")["kubectl"]), f"--kubeconfig={api_server.kubeconfig}"]
    subprocess.run([*kubectl, "apply", "-f", str(CRDS)], check=True, capture_output=True)
    wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)]
    subprocess.run([*kubectl, *wait], check=True, capture_output=True)


@pytest.fixture
async def client(crds: None, kubeconfig: Path, namespace: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(kubeconfig=str(kubeconfig), namespace=namespace) as made:
        yield made


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """Plays the operator: it alone writes a status."""
    async with await KubeClient.connect(kubeconfig=str(kubeconfig)) as made:
        yield made


def job(name: str = "digits", **spec: Any) -> dict[str, Any]:
    body = samples.job(name)
    del body["metadata"]["namespace"], body["metadata"]["creationTimestamp"]
    body["spec"] |= spec
    return body


def service(name: str = "digits") -> dict[str, Any]:
    body = samples.service(name)
    del body["metadata"]["namespace"], body["metadata"]["creationTimestamp"]
    return body


async def write_status(
    kube: KubeClient, namespace: str, status: dict[str, Any], resource: Any = TRAINING_JOBS
) -> None:
    await kube.merge_patch(
        resource,
        {"status": {"observedGeneration": 1, **status}},
        name="digits",
        namespace=namespace,
        field_manager="test",
        subresource="status",
    )


async def test_submit_and_list(client: AsyncClient, namespace: str) -> None:
    submitted = await client.submit(job())
    assert isinstance(submitted, TrainingJob)
    assert submitted.metadata.namespace == namespace
    await client.submit(job(priority=5))
    assert (await client.get_training_job("digits")).spec.priority == 5
    await client.submit(service())
    assert [each.metadata.name for each in await client.list_training_jobs()] == ["digits"]
    assert [each.metadata.name for each in await client.list_inference_services()] == ["digits"]
    everywhere = await client.list_training_jobs(all_namespaces=True)
    assert namespace in {each.metadata.namespace for each in everywhere}


async def test_wait_follows_the_status_that_the_operator_writes(
    client: AsyncClient, kube: KubeClient, namespace: str
) -> None:
    await client.submit(job())
    steps = [samples.queued(), samples.running(), samples.succeeded()]
    seen: list[str | None] = []
    writes: list[asyncio.Task[None]] = []

    def on_progress(workload: Any) -> None:
        seen.append(workload.status.state)
        if steps:
            writes.append(asyncio.create_task(write_status(kube, namespace, steps.pop(0))))

    finished = await client.wait("digits", on_progress=on_progress, timeout_seconds=60)
    assert isinstance(finished, TrainingJob)
    assert finished.status.output is not None
    assert seen == [None, "Queued", "Running", "Succeeded"]
    await asyncio.gather(*writes)


async def test_wait_for_failure_timeout_and_deletion(
    client: AsyncClient, kube: KubeClient, namespace: str
) -> None:
    await client.submit(job())
    with pytest.raises(WaitTimeout, match="is Pending"):
        await client.wait("digits", timeout_seconds=1)
    await write_status(kube, namespace, samples.failed())
    with pytest.raises(JobFailed, match="no such directory"):
        await client.wait("digits", timeout_seconds=60)
    waiting = asyncio.create_task(client.wait("digits", for_="deleted", timeout_seconds=60))
    await client.delete("tj", "digits")
    assert await waiting is None
    with pytest.raises(NotFoundError, match="does not exist"):
        await client.wait("digits")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"training": {"epochs": 1, "batchSize": -1}}, r"batchSize.*should be greater than or equal to 1"),
        ({"colour": "blue"}, r"colour.*field not declared in schema"),
        ({"task": "Telepathy"}, "Unsupported value"),
        ({"task": "TextClassification"}, "TextClassification needs model.base"),
    ],
)
async def test_a_bad_manifest_is_rejected_with_its_field(
    client: AsyncClient, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(RejectedError, match=message):
        await client.submit(job(**spec))


async def test_a_field_of_another_owner_needs_force(client: AsyncClient) -> None:
    await client.submit(job())
    await client.suspend("digits")
    with pytest.raises(RejectedError, match="conflict"):
        await client.submit(job(suspend=False))
    forced = await client.submit(job(suspend=False), force=True)
    assert isinstance(forced, TrainingJob)
    assert not forced.spec.suspend


async def test_suspend_resume_scale(client: AsyncClient) -> None:
    await client.submit(job())
    assert (await client.suspend("digits")).spec.suspend
    assert not (await client.resume("digits")).spec.suspend
    await client.submit(service())
    assert (await client.scale("digits", 3)).spec.replicas.min == 3


async def test_a_namespace_that_does_not_exist(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError, match="namespaces"):
        await client.submit(job(), namespace="no-such-namespace")


async def test_describe_finds_pods_and_events(client: AsyncClient, kube: KubeClient, namespace: str) -> None:
    await client.submit(job())
    await write_status(kube, namespace, samples.running())
    pod = samples.worker(0)
    pod["metadata"]["namespace"] = namespace
    pod["spec"] = {"containers": [{"name": "trainer", "image": "x"}], "automountServiceAccountToken": False}
    await kube.create(PODS, pod, namespace=namespace)
    for number, about, kind in (
        (1, "digits", "TrainingJob"),
        (2, "digits-g1-0", "Pod"),
        (3, "other", "TrainingJob"),
    ):
        event = samples.event(number, "Tested", "by a test", kind=kind, name=about)
        event["metadata"]["namespace"] = event["regarding"]["namespace"] = namespace
        event |= {"action": "Test", "reportingController": "datahall.dev/test", "reportingInstance": "test"}
        await kube.create(EVENTS, event, namespace=namespace)
    described = await client.describe("tj", "digits")
    assert described.state == "Running"
    assert [(each.name, each.rank, each.state) for each in described.pods] == [("digits-g1-0", 0, "Pending")]
    assert [each.about for each in described.events] == ["TrainingJob/digits", "Pod/digits-g1-0"]


async def test_explain_and_the_quota_tree(client: AsyncClient, kube: KubeClient, namespace: str) -> None:
    """What the operator writes is kept by the API server's schema, and comes back as the story tells it."""
    names = {each: f"{each}-{namespace}" for each in ("research", "vision")}
    for name, spec in (
        (names["research"], {"gpus": [{"model": "H100", "nominal": 0}]}),
        (names["vision"], {"parent": names["research"], "gpus": [{"model": "H100", "nominal": 16}]}),
    ):
        await client.submit(
            {"apiVersion": "datahall.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}
        )
    held = {"model": "H100", "used": 20, "nominal": 16, "borrowed": 4, "available": 2}
    status = {"observedGeneration": 1, "used": [held], "share": "0.125", "admitted": 3, "waiting": 2}
    await kube.merge_patch(
        QUEUES,
        {"status": status},
        name=names["vision"],
        namespace=None,
        field_manager="test",
        subresource="status",
    )
    await client.submit(job("first", queue=names["vision"], priority=9))
    await client.submit(job(queue=names["vision"]))
    await write_status(
        kube, namespace, {**samples.waiting(2), "preemptions": 1, "preemptedBy": samples.PREEMPTED_BY}
    )
    await kube.merge_patch(
        TRAINING_JOBS,
        {"status": {"observedGeneration": 1, **samples.waiting(1)}},
        name="first",
        namespace=namespace,
        field_manager="test",
        subresource="status",
    )
    story = await client.explain("digits")
    assert story.waiting is not None
    assert (story.waiting.position, [each.name for each in story.waiting.ahead]) == (2, ["first"])
    assert [blocker.reason for blocker in story.waiting.blockers] == ["BorrowedAway", "NoRoom"]
    assert (story.preemptions, story.unread) == (1, ())
    assert story.preempted_by is not None
    assert story.queue is not None
    assert (story.queue.name, story.queue.gpus[0].borrowed) == (names["vision"], 4)
    # The API server is shared: another test's queue with waiting jobs stands where this one does.
    assert story.queue.turn in (Turn.NEXT, Turn.TIED)
    tree = {each.name: each for each in await client.queue_tree()}
    assert (tree[names["research"]].depth, tree[names["vision"]].depth) == (0, 1)
    line = await client.queue_line(names["vision"])
    assert [(each.name, each.position) for each in line.line] == [("first", 1), ("digits", 2)]
    for name in reversed(names.values()):
        await client.delete("queue", name)


async def test_predict_reaches_the_service_proxy(
    client: AsyncClient, kube: KubeClient, namespace: str
) -> None:
    with pytest.raises(NotFoundError, match='"digits" not found'):
        await client.predict("digits", ["x"])


def test_a_cluster_without_the_kinds(crds: None, kubeconfig: Path, namespace: str) -> None:
    """The group is there, another version of it is not: the API server answers as for a kind it does not know."""

    async def ask() -> None:
        from datahall.kube.resources import Resource
        from datahall.sdk.errors import translated

        async with await KubeClient.connect(kubeconfig=str(kubeconfig)) as kube:
            for absent in (
                Resource("datahall.dev", "v1alpha1", "Nothing", "nothings"),
                Resource("no-such-group.dev", "v1", "Nothing", "nothings"),
            ):
                with translated():
                    await kube.list(absent, namespace=namespace)

    with pytest.raises(NotInstalledError, match="kubectl apply -f crds/"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (r"https://[^\s\"]+", "https://127.0.0.1:1", UnreachableError),
        (r"TOKEN", "wrong", DeniedError),
    ],
)
def test_a_broken_login(
    api_server: ApiServer, tmp_path: Path, pattern: str, replacement: str, expected: type[Exception]
) -> None:
    pattern = pattern.replace("TOKEN", api_server.token)
    path = tmp_path / "kubeconfig"
    broken, count = re.subn(pattern, replacement, api_server.kubeconfig.read_text())
    assert count
    path.write_text(broken)
    with Client(kubeconfig=str(path)) as client, pytest.raises(expected):
        client.list_training_jobs()


def test_the_command_line(crds: None, kubeconfig: Path, namespace: str) -> None:
    def run(*arguments: str, stdin: str = "") -> Any:
        options = ["--kubeconfig", str(kubeconfig), "-n", namespace]
        return CliRunner().invoke(app, [*arguments, *options], input=stdin, catch_exceptions=False)

    assert run("submit", "-f", "-", stdin=json.dumps(job())).stdout == "trainingjob/digits submitted\n"
    assert run("list", "--no-headers").stdout.split()[:2] == ["digits", "Pending"]
    assert json.loads(run("list", "-o", "json").stdout)["items"][0]["spec"]["queue"] == "team-a"
    assert "Why:         the operator has not looked at it yet" in run("describe", "digits").stdout
    assert run("explain", "digits").stdout.splitlines()[1] == "State:       Pending"
    assert json.loads(run("explain", "digits", "-o", "json").stdout)["waiting"] is None
    assert run("queue", "none").stderr == 'datahall: queues.datahall.dev "none" not found\n'
    timed_out = run("wait", "digits", "--timeout", "0.5")
    assert timed_out.exit_code == 3
    assert "is not Succeeded after 0.5 s; it is Pending" in timed_out.stderr
    assert run("delete", "digits", "--wait").exit_code == 0


async def test_a_service_becomes_ready(client: AsyncClient, kube: KubeClient, namespace: str) -> None:
    await client.submit(service())
    waiting = asyncio.create_task(client.wait("digits", kind="infs", timeout_seconds=60))
    await write_status(kube, namespace, samples.ready(), INFERENCE_SERVICES)
    ready = await waiting
    assert ready is not None
    assert ready.status.state == "Ready"
