"""The operator's memory without its hands: tables, dispatch, planner and work queue, fed with raw objects."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from datahall.api.trainingjob import Placement, TrainingJob
from datahall.control import times
from datahall.control.dispatch import JOB, Dispatch
from datahall.control.reconcilers import Reconcilers
from datahall.control.replicas import Replicas
from datahall.control.reports import Reports
from datahall.control.scheduling import News, Scheduling
from datahall.control.tables import Tables, pods_of_service
from datahall.control.training.pods import worker_pod
from datahall.control.workqueue import Key, WorkQueue
from tests.unit.control.world import SETTINGS, START, job_body, merged

Json = dict[str, Any]


class Hall:
    """Nodes of 8 H100 each, a Queue `team-a` of as many, and whatever a test puts in."""

    def __init__(self, *, nodes: int = 1, nominal: int = 8) -> None:
        self._versions, self._uids = itertools.count(1), itertools.count(1)
        self.tables = Tables()
        self.queue = WorkQueue()
        self.wakes = 0
        self.now = START.timestamp()
        self.scheduling = Scheduling(wake=self._wake, gpu_model_of=self._model)
        nobody: Any = None
        self.reports = Reports(nobody, jobs=self.tables.jobs, pods=self.tables.pods, news=lambda *_: None)
        self.replicas = Replicas(
            self.scheduling.planner,
            wake=self._wake,
            gpu_model_of=self._model,
            service_of=self.tables.services.get,
            pods_of=lambda namespace, name: self.tables.pods.group(pods_of_service(namespace, name)),
            now=lambda: self.now,
        )
        self.scheduling.others = self.replicas.take
        self.scheduling.gang_of_other = self.replicas.gang_of
        self.dispatch = Dispatch(
            self.tables,
            self.queue,
            scheduling=self.scheduling,
            replicas=self.replicas,
            reports=self.reports,
        )
        self.reconcilers = Reconcilers(
            tables=self.tables,
            queue=self.queue,
            scheduling=self.scheduling,
            replicas=self.replicas,
            reports=self.reports,
            executor=nobody,
            recorder=nobody,
            dispatch=self.dispatch,
            settings=SETTINGS,
        )
        for number in range(nodes):
            self.node(f"node-{number}")
        self.quota(nominal=nominal)
        self.claim("data")
        self.claim("models")
        self.queue_keys()

    def _wake(self) -> None:
        self.wakes += 1

    def _model(self, name: str) -> str:
        node = self.tables.nodes.get("", name)
        return node.gpu_model if node else ""

    def meta(self, name: str, namespace: str = "team-a", uid: str = "", **more: Any) -> Json:
        return {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"u{next(self._uids)}",
            "resourceVersion": str(next(self._versions)),
            "creationTimestamp": times.to_text(START),
            "generation": 1,
            **more,
        }

    # ---- objects

    def node(self, name: str, **over: Any) -> None:
        body = {
            "metadata": self.meta(name, "", f"node-{name}", labels={"nvidia.com/gpu.product": "H100"}),
            "spec": {},
            "status": {
                "allocatable": {"cpu": "640", "memory": "5000Gi", "nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        self.tables.nodes.put(merged(body, over))

    def quota(
        self, *, name: str = "team-a", nominal: int = 8, status: Json | None = None, **spec: Any
    ) -> None:
        quota = {"model": "H100", "nominal": nominal, **spec.pop("limits", {})}
        body = {"metadata": self.meta(name, "", f"queue-{name}"), "spec": {"gpus": [quota], **spec}}
        body["metadata"]["generation"] = next(self._versions)
        body["status"] = status or {}
        self.tables.queues.put(body)

    def claim(
        self, name: str, namespace: str = "team-a", *, phase: str = "Bound", storage_class: str = ""
    ) -> Json:
        body: Json = {"metadata": self.meta(name, namespace), "status": {"phase": phase}}
        body["spec"] = {"storageClassName": storage_class}
        self.tables.claims.put(body)
        return body

    def storage_class(self, name: str, mode: str = "Immediate") -> None:
        self.tables.storage_classes.put({"metadata": self.meta(name, ""), "volumeBindingMode": mode})

    def job(
        self,
        name: str = "digits",
        *,
        gpus: int = 8,
        workers: int = 1,
        fewest: int | None = None,
        places: bool = False,
        **spec: Any,
    ) -> Json:
        """A new job; with `places`, one that was admitted to node-0."""
        resources = {"gpus": gpus, "cpu": "1", "memory": "1Gi"}
        body = job_body(workers=workers, resources=resources, **spec)
        body["metadata"] = self.meta(name)
        if fewest is not None:
            body["spec"]["workers"]["min"] = fewest
        if places:
            body["status"] = {
                "generation": 1,
                "placement": [{"rank": r, "node": "node-0", "gpuModel": "H100"} for r in range(workers)],
            }
        self.tables.jobs.put(body)
        return body

    def change_job(self, body: Json, **over: Any) -> Json:
        body = merged(body, over)
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.tables.jobs.put(body)
        return body

    def delete_job(self, body: Json) -> None:
        metadata = body["metadata"]
        self.tables.jobs.remove(metadata["namespace"], metadata["name"], metadata["uid"])

    def worker(self, job: Json, rank: int = 0, *, phase: str = "Running", node: str = "node-0") -> Json:
        parsed = TrainingJob.from_json(job)
        place = Placement(rank=rank, node=node)
        count = parsed.spec.workers.count
        body = worker_pod(parsed, generation=1, place=place, workers=count, settings=SETTINGS)
        body["metadata"] |= self.meta(body["metadata"]["name"])
        body["spec"]["nodeName"] = node
        body["status"] = {"phase": phase}
        self.tables.pods.put(body)
        return body

    def pod(self, name: str, *, gpus: int = 0, node: str = "node-0", labels: Json | None = None) -> Json:
        requests = {"nvidia.com/gpu": str(gpus), "cpu": "1"}
        body = {
            "metadata": self.meta(name, labels=labels or {}),
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": requests}}]},
            "status": {"phase": "Running"},
        }
        self.tables.pods.put(body)
        return body

    def change_pod(self, body: Json, **over: Any) -> Json:
        body = merged(copy.deepcopy(body), over)
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.tables.pods.put(body)
        return body

    def delete_pod(self, body: Json) -> None:
        metadata = body["metadata"]
        self.tables.pods.remove(metadata["namespace"], metadata["name"], metadata["uid"])

    # ---- the operator

    def settle(self, body: Json) -> None:
        """What a look at a job tells the planner."""
        metadata = body["metadata"]
        view = self.tables.jobs.get(metadata["namespace"], metadata["name"])
        assert view is not None
        assert view.job is not None
        pods = self.reconcilers._pods(view.namespace, view.name)
        self.reconcilers._settle(view.job, pods, blocked=view.deleting)

    def cycle(self) -> list[News]:
        return self.scheduling.cycle()

    def write_admission(self, body: Json) -> Json:
        """The place that was found stands in the status now."""
        places, spread = self.scheduling.admitted(body["metadata"]["uid"]) or ((), "")
        written = [{"rank": p.rank, "node": p.node, "gpuModel": p.gpu_model} for p in places]
        body = self.change_job(body, status={"generation": 1, "placement": written, "spread": spread})
        self.settle(body)
        return body

    def admitted(self, body: Json) -> bool:
        return self.scheduling.admitted(body["metadata"]["uid"]) is not None

    def reason(self, body: Json) -> str | None:
        waiting = self.scheduling.waiting(body["metadata"]["uid"])
        return str(waiting.reason) if waiting else None

    @property
    def used(self) -> int:
        return sum(self.scheduling.usage("team-a").values())

    def queue_keys(self) -> set[tuple[str, str]]:
        """Kind and name of what is ready to be looked at; none of it is afterwards."""
        keys: set[Key] = set(self.queue.ready())
        self.queue = self.dispatch._queue = WorkQueue()
        self.reconcilers._queue = self.queue
        return {(key.kind, key.name) for key in keys}

    def delayed_keys(self) -> dict[tuple[str, str], float]:
        return {(key.kind, key.name): due for (key, _), due in self.queue._due.items()}


__all__ = ["JOB", "Hall"]
