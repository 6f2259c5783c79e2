"""Those around the operator whom tests play: administrator, user and kubelet of one namespace."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from datahall.kube import AlreadyExistsError, KubeClient, NotFoundError, Resource, UnavailableError
from datahall.kube.login import Login
from datahall.kube.resources import (
    EVENTS,
    INFERENCE_SERVICES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    POWER_DOMAINS,
    QUEUES,
    TRAINING_JOBS,
)
from local_cluster.api import ApiServer
from tests.cluster.statuses import condition_of
from tests.cluster.waiting import until

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
VOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", False)
API = "datahall.dev/v1alpha1"
DIGEST = "sha256:" + "0123456789abcdef" * 4
SUCCEEDED = {
    "result": "Succeeded",
    "output": {"uri": "pvc://models/digits/versions/0123456789abcdef", "digest": DIGEST},
    "progress": {"step": 10, "totalSteps": 10, "metrics": {"validation_accuracy": 0.98}},
    "checkpoint": None,
}
"""What the trainer of a worker that finished leaves as its termination message."""


class Cluster:
    """A namespace with nodes, a Queue and claims; helpers to make, read and await objects."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, server: ApiServer, namespace: str, *, nodes: int = 0, quota: int = 64
    ) -> AsyncIterator[Cluster]:
        """Connect; install the definitions; make nodes, a Queue named like the namespace, and claims."""
        context = ssl.create_default_context(cafile=str(server.ca))

        async def authorization() -> str:
            return f"Bearer {server.token}"

        async with KubeClient(Login(server.url, context, authorization, namespace)) as client:
            self = cls(client, namespace)
            await self._install()
            for index in range(nodes):
                await self._node(f"{namespace}-{index}")
            await until(self._account, what="the default service account")
            await self.queue(quota)
            for name in ("data", "models"):
                await self.claim(name)
            try:
                yield self
            finally:
                await self._clean(nodes)

    async def _install(self) -> None:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            with contextlib.suppress(AlreadyExistsError):
                await self.client.create(CRDS, body)
        for resource in (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES, POWER_DOMAINS):

            async def served(resource: Resource = resource) -> bool:
                try:
                    await self.client.list(resource)
                except (NotFoundError, UnavailableError):  # "storage is (re)initializing" at first
                    return False
                return True

            await until(served, what=f"{resource.plural} are served")

    async def _account(self) -> bool:
        accounts = Resource("", "v1", "ServiceAccount", "serviceaccounts")
        return await self.get(accounts, "default") is not None

    async def _node(self, name: str) -> None:
        amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}
        body = {
            "metadata": {
                "name": name,
                "labels": {"nvidia.com/gpu.product": "H100", "kubernetes.io/hostname": name},
            },
            "status": {
                "allocatable": amounts,
                "capacity": amounts,
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T15:00:00Z"}
                ],
            },
        }
        await self.client.create(NODES, body)

    async def _clean(self, nodes: int) -> None:
        for resource in (TRAINING_JOBS, INFERENCE_SERVICES, PODS):
            for item in (await self.client.list(resource, namespace=self.namespace))["items"]:
                with contextlib.suppress(NotFoundError):
                    await self.client.delete(
                        resource, item["metadata"]["name"], namespace=self.namespace, grace_seconds=0
                    )
        for queue in (await self.client.list(QUEUES))["items"]:
            if queue["metadata"]["name"].startswith(self.namespace):
                await self.client.delete(QUEUES, queue["metadata"]["name"])
        for domain in (await self.client.list(POWER_DOMAINS))["items"]:
            if domain["metadata"]["name"].startswith(self.namespace):
                await self.client.delete(POWER_DOMAINS, domain["metadata"]["name"])
        for index in range(nodes):
            await self.client.delete(NODES, f"{self.namespace}-{index}")
        for volume in (await self.client.list(VOLUMES))["items"]:
            if volume["spec"]["claimRef"]["namespace"] == self.namespace:
                await self.client.delete(VOLUMES, volume["metadata"]["name"])

    # ---- making

    async def queue(self, nominal: int, *, name: str = "", **spec: Any) -> str:
        """A Queue with GPUs of any model, named like the namespace unless it has a name; its name."""
        body = {
            "apiVersion": API,
            "kind": "Queue",
            "metadata": {"name": name or self.namespace},
            "spec": {"gpus": [{"model": "Any", "nominal": nominal}], **spec},
        }
        await self.client.create(QUEUES, body)
        return name or self.namespace

    async def claim(self, name: str, *, storage_class: str = "", bound: bool = True) -> None:
        """A claim; the controller manager binds it to the volume that is made for it, if one is."""
        spec = {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        body = {"metadata": {"name": name}, "spec": spec}
        await self.client.create(PERSISTENT_VOLUME_CLAIMS, body, namespace=self.namespace)
        if bound:
            await self.volume(name, storage_class=storage_class)

    async def volume(self, claim: str, *, storage_class: str = "") -> None:
        """The volume of a claim."""
        claimed = await self.client.get(PERSISTENT_VOLUME_CLAIMS, claim, namespace=self.namespace)
        # With the uid the binder acts at once; without it, at its next round of 15 seconds.
        reference = {"namespace": self.namespace, "name": claim, "uid": claimed["metadata"]["uid"]}
        spec = {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            "hostPath": {"path": "/var/empty"},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        await self.client.create(VOLUMES, {"metadata": {"name": f"{self.namespace}-{claim}"}, "spec": spec})

    async def job(self, name: str = "digits", *, workers: int | Json = 2, **spec: Any) -> str:
        """Submit a TrainingJob; its name."""
        whole = {
            "queue": self.namespace,
            "task": "ImageClassification",
            "workers": {"count": workers} if isinstance(workers, int) else workers,
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
            "model": {"architecture": "cnn"},
            "data": {"train": "pvc://data/digits", "validationFraction": 0.2},
            "training": {"epochs": 1, "batchSize": 64},
            "output": {"uri": "pvc://models/digits"},
        } | spec
        whole = {key: value for key, value in whole.items() if value is not None}
        body = {"apiVersion": API, "kind": "TrainingJob", "metadata": {"name": name}, "spec": whole}
        await self.client.create(TRAINING_JOBS, body, namespace=self.namespace)
        return name

    async def service(self, name: str = "digits", **spec: Any) -> str:
        whole = {"queue": self.namespace, "model": {"fromTrainingJob": {"name": "digits"}}} | spec
        body = {"apiVersion": API, "kind": "InferenceService", "metadata": {"name": name}, "spec": whole}
        await self.client.create(INFERENCE_SERVICES, body, namespace=self.namespace)
        return name

    async def edit(self, resource: Resource, name: str, **spec: Any) -> None:
        await self.client.merge_patch(
            resource, {"spec": spec}, name=name, namespace=self.namespace, field_manager="test"
        )

    async def delete(self, resource: Resource, name: str, **options: Any) -> None:
        await self.client.delete(resource, name, namespace=self.namespace, **options)

    # ---- reading

    async def get(self, resource: Resource, name: str) -> Json | None:
        try:
            return await self.client.get(resource, name, namespace=self.namespace)
        except NotFoundError:
            return None

    async def status(self, name: str = "digits", resource: Resource = TRAINING_JOBS) -> Json:
        body = await self.get(resource, name)
        return (body or {}).get("status") or {}

    async def pods(self, job: str = "digits") -> dict[str, Json]:
        selector = f"datahall.dev/training-job={job}"
        items = (await self.client.list(PODS, namespace=self.namespace, label_selector=selector))["items"]
        return {item["metadata"]["name"]: item for item in items}

    async def listed(self, resource: Resource) -> list[Json]:
        items: list[Json] = (await self.client.list(resource, namespace=self.namespace))["items"]
        return items

    async def events(self, name: str = "digits") -> dict[str, str]:
        """Notes of the Events about an object, by reason."""
        return {e["reason"]: e["note"] for e in await self.listed(EVENTS) if e["regarding"]["name"] == name}

    async def state(self, wanted: str, name: str = "digits", *, seconds: float = 20) -> Json:
        """Wait for a state word; the status."""
        status: Json = {}

        async def there() -> bool:
            nonlocal status
            status = await self.status(name)
            return status.get("state") == wanted

        try:
            await until(there, seconds=seconds, what=f"{name} is {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(status, indent=1)}") from None
        return status

    async def condition(
        self,
        type_: str,
        wanted: str,
        name: str = "digits",
        *,
        reason: str = "",
        resource: Resource = TRAINING_JOBS,
        seconds: float = 20,
    ) -> Json:
        """Wait for a condition; the condition."""
        status: Json = {}

        async def there() -> Json | None:
            nonlocal status
            status = await self.status(name, resource)
            found = condition_of(status, type_)
            return found if found["status"] == wanted and reason in ("", found["reason"]) else None

        try:
            found: Json = await until(there, seconds=seconds, what=f"{name}: {type_} {wanted} {reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(status, indent=1)}") from None
        return found

    async def gang(
        self, *names: str, job: str = "digits", seconds: float = 20, reap: bool = False
    ) -> dict[str, Json]:
        """Wait until a job has exactly these pods; with `reap`, those that are to go go meanwhile."""
        pods: dict[str, Json] = {}

        async def there() -> bool:
            nonlocal pods
            if reap:
                await self.reap()
            pods = await self.pods(job)
            return set(pods) == set(names)

        try:
            await until(there, seconds=seconds, what=f"pods {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {sorted(pods)}") from None
        return pods

    # ---- the kubelet's part

    async def run(self, *names: str) -> None:
        """Bind pods to the nodes that they are pinned to, and have them run."""
        for name in names:
            pod = await self.client.get(PODS, name, namespace=self.namespace)
            if not pod["spec"].get("nodeName"):
                term = pod["spec"]["affinity"]["nodeAffinity"][
                    "requiredDuringSchedulingIgnoredDuringExecution"
                ]
                node = term["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
                binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
                await self.client.request(
                    "POST",
                    PODS.path(namespace=self.namespace, name=name, subresource="binding"),
                    verb="create",
                    resource="pods/binding",
                    body={"apiVersion": "v1", "kind": "Binding", **binding},
                )
            state = {"running": {"startedAt": "2026-11-22T15:00:00Z"}}
            await self.pod_status(name, "Running", state)

    async def end(self, name: str, exit_code: int, said: Json | str = "", reason: str = "") -> None:
        """The container of a pod ends."""
        terminated = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": said if isinstance(said, str) else json.dumps(said),
            "startedAt": "2026-11-22T15:00:00Z",
            "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        phase = "Succeeded" if exit_code == 0 else "Failed"
        await self.pod_status(name, phase, {"terminated": terminated})

    async def pod_status(
        self, name: str, phase: str, state: Json, *, ready: bool = False, **more: Any
    ) -> None:
        container = {
            "name": "trainer",
            "image": "i",
            "imageID": "i",
            "ready": ready,
            "restartCount": 0,
            "state": state,
            **more,
        }
        conditions = [{"type": "Ready", "status": str(ready)}]
        await self.client.merge_patch(
            PODS,
            {"status": {"phase": phase, "containerStatuses": [container], "conditions": conditions}},
            name=name,
            namespace=self.namespace,
            field_manager="kubelet",
            subresource="status",
        )

    async def reap(self) -> None:
        """Pods that are to go are gone, as a kubelet confirms it."""
        for pod in await self.listed(PODS):
            if "deletionTimestamp" in pod["metadata"]:
                with contextlib.suppress(NotFoundError):
                    await self.delete(PODS, pod["metadata"]["name"], grace_seconds=0)

    async def interrupt(self, job: str, *, workers: int = 1) -> None:
        """Workers of the first generation are told to end, save and end, and are gone."""
        names = [f"{job}-g1-{rank}" for rank in range(workers)]

        async def told() -> bool:
            pods = await self.pods(job)
            return all("deletionTimestamp" in pods[name]["metadata"] for name in names)

        await until(told, what=f"the workers of {job} are told to end")
        for name in names:
            await self.end(name, 143, {"result": "Interrupted"})
        await self.reap()
