"""A hall with a service whose replicas go through the planner, for the tests of replicas."""

from __future__ import annotations

import datetime
from typing import Any

from datahall.control import times
from datahall.control.scheduling import News
from datahall.control.serving import gate
from datahall.control.serving.seen import Answers
from datahall.control.tables import pods_of_service
from datahall.control.views import PodView
from tests.unit.control.hall import Hall
from tests.unit.control.world import START, merged

Json = dict[str, Any]

GATE = {"schedulingGates": [{"name": "datahall.dev/placement"}]}
LABELS = {"datahall.dev/inference-service": "digits", "datahall.dev/queue": "team-a"}


def pinned(*nodes: str) -> Json:
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]} for node in nodes]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def gate_affinity(*models: str) -> Json:
    return {"affinity": gate.gpu_affinity(models)}


class Service:
    """A hall with one service; a test plays the Deployment controller, the kube-scheduler and the kubelet."""

    def __init__(self, *, nodes: int = 1, nominal: int = 8, gpus: int = 4, wanted: int = 2) -> None:
        self.hall = Hall(nodes=nodes, nominal=nominal)
        self.gpus = gpus
        self.pods: dict[str, Json] = {}
        self.raw: Json = {
            "metadata": self.hall.meta("digits", uid="svc-1"),
            "spec": {
                "queue": "team-a",
                "model": {"uri": "pvc://models/x"},
                "resources": {"gpus": gpus},
                "replicas": {"min": wanted},
            },
        }
        self.hall.tables.services.put(self.raw)
        self.hall.queue_keys()

    # ---- those around

    def make(self, name: str, *, version: str = "v1", gpus: int | None = None, **over: Any) -> None:
        """The Deployment makes a pod."""
        wanted = self.gpus if gpus is None else gpus
        requests = {"nvidia.com/gpu": str(wanted), "cpu": "1", "memory": "1Gi"}
        body = {
            "metadata": self.hall.meta(name, uid=name, labels=LABELS | {"pod-template-hash": version}),
            "spec": {**GATE, "containers": [{"name": "server", "resources": {"requests": requests}}]},
            "status": {"phase": "Pending"},
        }
        at = START + datetime.timedelta(seconds=len(self.pods))
        body["metadata"]["creationTimestamp"] = times.to_text(at)
        self.put(name, merged(body, over))

    def put(self, name: str, body: Json) -> None:
        self.pods[name] = body
        self.hall.tables.pods.put(body)

    def change(self, name: str, **over: Any) -> None:
        self.pods[name] = self.hall.change_pod(self.pods[name], **over)

    def bind(self, *names: str) -> None:
        for name in names:
            self.change(name, spec={"nodeName": self.view(name).node}, status={"phase": "Running"})

    def leave(self, name: str) -> None:
        self.change(name, metadata={"deletionTimestamp": times.to_text(START)})

    def gone(self, name: str) -> None:
        self.hall.delete_pod(self.pods.pop(name))

    def pass_time(self, seconds: float) -> None:
        self.hall.now += seconds

    # ---- the operator

    @property
    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.hall.now, datetime.UTC)

    def view(self, name: str) -> PodView:
        found = self.hall.tables.pods.get("team-a", name)
        assert found is not None
        return found

    def review(self) -> Answers:
        pods = self.hall.tables.pods.group(pods_of_service("team-a", "digits"))
        return self.hall.replicas.review("team-a", "digits", pods, self.now)

    def lift(self) -> set[str]:
        """What the service's next look writes: gates are lifted where a place was found."""
        places = self.review().places
        for name, node in places.items():
            self.change(name, **gate.place(self.view(name), node, self.now).body)
        return set(places)

    def cycle(self) -> list[News]:
        news: list[News] = []
        for _ in range(3):  # one that asks elsewhere is answered in the next cycle
            news += self.hall.cycle()
        return news

    def start(self, *names: str) -> None:
        for name in names:
            self.make(name)
        self.cycle()
        assert self.lift() == set(names)
        self.bind(*names)

    def waits(self) -> dict[str, str]:
        return {uid: str(waiting.reason) for uid, waiting in self.review().waits.items()}

    def held(self, name: str) -> str | None:
        places = self.hall.scheduling.planner.held(name)
        return places[0].node if places else None

    def restart(self) -> None:
        """Another process takes over: it knows what the API server holds, and nothing else."""
        fresh = Service(nodes=0, gpus=self.gpus)
        for table in ("nodes", "queues"):
            for view in getattr(self.hall.tables, table):
                getattr(fresh.hall.tables, table)._set((view.namespace, view.name), None, view)
        for body in self.pods.values():
            fresh.hall.tables.pods.put(body)
        fresh.hall.tables.services.put(self.raw)
        fresh.hall.now = self.hall.now
        self.hall = fresh.hall
