"""The verbs of both clients against an API server in memory, and that the two clients say the same."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from datahall.sdk import (
    AsyncClient,
    Client,
    DeniedError,
    InferenceService,
    JobFailed,
    MisuseError,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    TrainingJob,
    UnreachableError,
    UnreadableError,
)
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi


def verbs(client: type) -> dict[str, object]:
    return {name: getattr(client, name) for name in vars(client) if not name.startswith("_")}


def test_both_clients_have_the_same_verbs_and_signatures() -> None:
    asynchronous, synchronous = verbs(AsyncClient), verbs(Client)
    assert list(asynchronous) == list(synchronous)
    for name, method in asynchronous.items():
        mine, twin = inspect.signature(method), inspect.signature(synchronous[name])  # type: ignore[arg-type]
        assert list(mine.parameters.values()) == list(twin.parameters.values()), name
        assert str(mine.return_annotation).replace("AsyncIterator", "Iterator") == twin.return_annotation, (
            name
        )
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name
    assert inspect.signature(AsyncClient) == inspect.signature(Client)


def test_the_surface_grows_only_on_purpose() -> None:
    assert sorted(verbs(AsyncClient)) == [
        "close",
        "delete",
        "describe",
        "explain",
        "get_inference_service",
        "get_object",
        "get_queue",
        "get_training_job",
        "list_inference_services",
        "list_objects",
        "list_queues",
        "list_training_jobs",
        "logs",
        "moves",
        "namespace",
        "predict",
        "queue_line",
        "queue_tree",
        "resume",
        "scale",
        "submit",
        "suspend",
        "wait",
    ]


async def test_submit_applies_and_returns_the_typed_object(api: FakeApi, client: AsyncClient) -> None:
    manifest = samples.job()
    del manifest["metadata"]["namespace"]
    submitted = await client.submit(manifest)
    assert isinstance(submitted, TrainingJob)
    assert submitted.metadata.namespace == "team-a"
    method, path, query = api.requests[-1]
    assert (method, path) == ("PATCH", "/apis/datahall.dev/v1alpha1/namespaces/team-a/trainingjobs/digits")
    assert query == {"fieldManager": "datahall-client", "force": "false"}


async def test_submit_of_a_queue_has_no_namespace(api: FakeApi, client: AsyncClient) -> None:
    await client.submit(samples.queue())
    assert api.requests[-1][1] == "/apis/datahall.dev/v1alpha1/queues/team-a"


async def test_submit_says_which_field_is_wrong(api: FakeApi, client: AsyncClient) -> None:
    message = 'TrainingJob.datahall.dev "digits" is invalid: spec.training.batchSize: Invalid value: -1'
    api.answers.append((422, {"kind": "Status", "reason": "Invalid", "message": message}))
    with pytest.raises(RejectedError, match=re.escape(message)):
        await client.submit(samples.job())
    unknown = "failed to create typed patch object (a/digits): .spec.colour: field not declared in schema"
    api.answers.append((500, {"kind": "Status", "reason": "InternalError", "message": unknown}))
    with pytest.raises(RejectedError, match=re.escape(unknown)):
        await client.submit(samples.job())


async def test_get_and_list_are_typed(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    api.put(samples.job("other", namespace="team-b"))
    api.put(samples.service(**samples.ready()))
    api.put(samples.queue())
    job = await client.get_training_job("digits")
    assert job.status.progress is not None
    assert job.status.progress.eta_seconds == 77
    assert (await client.get_inference_service("digits")).status.ready_replicas == 2
    assert (await client.get_queue("team-a")).status.waiting == 1
    assert [job.metadata.name for job in await client.list_training_jobs()] == ["digits"]
    assert [job.metadata.name for job in await client.list_training_jobs(namespace="team-b")] == ["other"]
    everywhere = await client.list_training_jobs(all_namespaces=True)
    assert [job.metadata.namespace for job in everywhere] == ["team-a", "team-b"]
    assert len(await client.list_inference_services()) == 1
    assert [queue.metadata.name for queue in await client.list_queues()] == ["team-a"]
    assert (await client.get_object("tj", "digits"))["status"]["state"] == "Running"
    assert (await client.list_objects("queue"))[0]["kind"] == "Queue"


async def test_a_field_of_a_newer_operator_does_not_blind_an_older_client(
    api: FakeApi, client: AsyncClient
) -> None:
    body = samples.job(**samples.running())
    body["spec"]["colour"] = "blue"
    body["spec"]["training"]["momentum"] = 0.9
    api.put(body)
    assert (await client.get_training_job("digits")).spec.queue == "team-a"
    body["spec"]["task"] = "Telepathy"
    api.put(body)
    with pytest.raises(UnreadableError, match=r"cannot read TrainingJob digits: spec\.task"):
        await client.get_training_job("digits")


async def test_suspend_resume_scale_delete(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    api.put(samples.service())
    assert (await client.suspend("digits")).spec.suspend
    assert not (await client.resume("digits")).spec.suspend
    service = await client.scale("digits", 5)
    assert isinstance(service, InferenceService)
    assert service.spec.replicas.min == 5
    assert api.count("PATCH", "inferenceservices/digits/scale") == 1
    with pytest.raises(MisuseError, match="0 or more"):
        await client.scale("digits", -1)
    await client.delete("tj", "digits")
    with pytest.raises(NotFoundError):
        await client.delete("tj", "digits")


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (
            401,
            {"message": "Unauthorized", "reason": "Unauthorized"},
            DeniedError,
            "does not accept the credentials",
        ),
        (403, {"message": "jobs is forbidden", "reason": "Forbidden"}, DeniedError, "jobs is forbidden"),
        (404, "404 page not found", NotInstalledError, "kubectl apply -f crds/"),
        (404, {"message": '"x" not found', "reason": "NotFound"}, NotFoundError, '"x" not found'),
        (
            409,
            {"message": "conflict with kubectl", "reason": "Conflict"},
            RejectedError,
            "conflict with kubectl",
        ),
        (429, {"message": "too many"}, UnreachableError, "overloaded"),
        (503, "no", UnreachableError, "cannot be reached"),
    ],
)
async def test_errors(
    api: FakeApi, client: AsyncClient, status: int, body: object, expected: type[Exception], message: str
) -> None:
    api.answers.append((status, body))
    with pytest.raises(expected, match=message):
        await client.get_training_job("digits")


async def test_no_kubeconfig(tmp_path: Path) -> None:
    async with AsyncClient(kubeconfig=str(tmp_path / "none")) as client:
        with pytest.raises(UnreachableError, match="there is no kubeconfig"):
            await client.list_training_jobs()


async def test_nothing_listens(api: FakeApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace(api.url, "http://127.0.0.1:1"))
    async with AsyncClient(kubeconfig=str(path)) as client:
        with pytest.raises(UnreachableError, match="cannot be reached"):
            await client.list_training_jobs()


async def test_a_namespace_given_to_the_client_wins(api: FakeApi, kubeconfig: str) -> None:
    async with AsyncClient(kubeconfig=kubeconfig, namespace="team-b") as client:
        assert await client.namespace() == "team-b"
        await client.list_training_jobs()
    assert "/namespaces/team-b/" in api.requests[-1][1]


# --- the synchronous client ---


def test_synchronous_verbs(api: FakeApi, kubeconfig: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(samples.job(workers=1)))
    seen: list[str | None] = []
    with Client(kubeconfig=kubeconfig) as client:
        assert client.submit(path).metadata.name == "digits"
        assert [job.metadata.name for job in client.list_training_jobs()] == ["digits"]
        api.put(samples.worker(0))
        api.log("digits-g1-0", "one", "two", "three")
        assert [line.text for line in client.logs("digits")] == ["one", "two", "three"]
        for line in client.logs("digits", follow=True):
            assert line.text == "one"
            break
        api.on_watch["trainingjobs"].append(
            lambda: api.status("TrainingJob", "digits", **samples.succeeded()) and None
        )
        job = client.wait("digits", on_progress=lambda job: seen.append(job.status.state))
        assert isinstance(job, TrainingJob)
        assert client.describe("tj", "digits").state == "Succeeded"
        client.delete("tj", "digits")
    assert seen == [None, "Succeeded"]


def test_the_synchronous_callback_runs_in_the_callers_thread_and_may_raise(
    api: FakeApi, kubeconfig: str
) -> None:
    import threading

    api.put(samples.job())

    def stop(job: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        raise KeyboardInterrupt

    with Client(kubeconfig=kubeconfig) as client, pytest.raises(KeyboardInterrupt):
        client.wait("digits", on_progress=stop)


async def test_the_synchronous_client_works_where_a_loop_runs(api: FakeApi, kubeconfig: str) -> None:
    api.put(samples.job(**samples.failed()))
    with Client(kubeconfig=kubeconfig) as client, pytest.raises(JobFailed):
        client.wait("digits")


def test_closing_twice_and_not_at_all(kubeconfig: str) -> None:
    client = Client(kubeconfig=kubeconfig)
    client.close()
    client.close()
    forgotten = Client(kubeconfig=kubeconfig)
    forgotten.list_training_jobs()
    del forgotten
