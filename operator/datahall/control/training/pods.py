"""The objects of a gang: its pods, and the headless Service that gives them DNS names (docs/contracts.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from datahall.api import API_VERSION
from datahall.api.trainingjob import Placement, Task, TrainingJob
from datahall.control import labels
from datahall.control.settings import Settings
from datahall.kube.resources import PODS, SERVICES

RENDEZVOUS_PORT = 29500
GRACE_SECONDS = 60
TOKEN_AUDIENCE = "datahall.dev"  # noqa: S105 - an audience, not a secret
TOKEN_DIRECTORY = "/var/run/secrets/datahall"  # noqa: S105
PVC_ROOT = "/mnt/pvc"


def owner(job: TrainingJob) -> dict[str, Any]:
    """The ownerReference of a child: it goes when the job goes, without a finalizer."""
    return owner_reference("TrainingJob", job.metadata.name, job.metadata.uid)


def owner_reference(kind: str, name: str, uid: str) -> dict[str, Any]:
    """A controlling ownerReference to an object of ours."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claims(uris: Iterable[str | None]) -> tuple[str, ...]:
    """The PersistentVolumeClaims that `pvc://CLAIM/PATH` URIs name, each once, in order."""
    names = (uri.removeprefix("pvc://").split("/", 1)[0] for uri in uris if uri and uri.startswith("pvc://"))
    return tuple(dict.fromkeys(names))


def read_claims(job: TrainingJob) -> tuple[str, ...]:
    """The claims that a job reads."""
    spec = job.spec
    base = spec.model.base if spec.model else None
    data = (spec.data.train, spec.data.validation) if spec.data else ()
    return claims((base, *data))


def written_claims(job: TrainingJob) -> tuple[str, ...]:
    """The claims that a job writes."""
    return claims((job.spec.output.uri,)) if job.spec.output else ()


def workers_service(job: TrainingJob) -> dict[str, Any]:
    """The headless Service. Not-ready pods are published: workers find each other before they are ready."""
    name = labels.workers_service(job.metadata.name)
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": _labels(job),
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {labels.TRAINING_JOB: job.metadata.name},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
        },
    }


def worker_pod(
    job: TrainingJob, *, generation: int, place: Placement, workers: int, settings: Settings
) -> dict[str, Any]:
    """The pod of one worker, pinned to the node that the planner chose; the kube-scheduler still checks and binds.

    Args:
        job: the job.
        generation: the gang's generation.
        place: the worker's rank and node.
        workers: workers of this generation, which may be fewer than the spec's count.
        settings: images and addresses.
    """
    name = labels.worker_pod(job.metadata.name, generation, place.rank)
    spec = job.spec
    custom = spec.task is Task.CUSTOM
    written = written_claims(job)
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": {
                **_labels(job),
                labels.GENERATION: str(generation),
                labels.RANK: str(place.rank),
                labels.QUEUE: spec.queue,
            },
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "restartPolicy": "Never",
            "hostname": name,
            "subdomain": labels.workers_service(job.metadata.name),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"priorityClassName": settings.priority_class} if settings.priority_class else {}),
            "affinity": _pin(place.node),
            "tolerations": [{"key": key, "operator": "Exists"} for key in TOLERATED],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "trainer",
                    **_program(job, settings),
                    "imagePullPolicy": settings.image_pull_policy,
                    "env": _environment(
                        job, generation=generation, rank=place.rank, workers=workers, settings=settings
                    ),
                    "resources": resources(spec.resources.gpus, spec.resources.cpu, spec.resources.memory),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": not custom,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
                        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
                        {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
                        *claim_mounts(read_claims(job), written),
                    ],
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                {
                    "name": "token",
                    "projected": {
                        "sources": [
                            {
                                "serviceAccountToken": {
                                    "path": "token",
                                    "audience": TOKEN_AUDIENCE,
                                    "expirationSeconds": 3600,
                                }
                            }
                        ]
                    },
                },
                *claim_volumes(read_claims(job), written),
            ],
        },
    }


TOLERATED = (labels.GPU_RESOURCE,)


def resources(gpus: int, cpu: str, memory: str) -> dict[str, Any]:
    """What a container asks for. GPUs and memory are limits too; CPU is not, so that idle cores can be used."""
    hard = {"memory": memory} | ({labels.GPU_RESOURCE: str(gpus)} if gpus else {})
    return {"requests": {"cpu": cpu} | hard, "limits": hard}


def claim_volumes(read: tuple[str, ...], written: tuple[str, ...]) -> list[dict[str, Any]]:
    """One volume per claim."""
    return [
        {"name": f"pvc-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(dict.fromkeys((*read, *written)))
    ]


def claim_mounts(read: tuple[str, ...], written: tuple[str, ...]) -> list[dict[str, Any]]:
    """Where each claim is mounted; read-only unless the pod writes there."""
    return [
        {"name": f"pvc-{number}", "mountPath": f"{PVC_ROOT}/{claim}", "readOnly": claim not in written}
        for number, claim in enumerate(dict.fromkeys((*read, *written)))
    ]


def trainer_config(job: TrainingJob) -> dict[str, Any]:
    """`DATAHALL_JOB_CONFIG`: the part of the effective spec that the trainer acts on."""
    effective = job.spec.effective()
    return {
        "job": {
            "name": job.metadata.name,
            "namespace": job.metadata.namespace,
            "uid": job.metadata.uid,
        },
        **{
            field: effective[field]
            for field in ("task", "model", "data", "training", "strategy", "checkpoint", "output")
        },
    }


def _labels(job: TrainingJob) -> dict[str, str]:
    return {labels.MANAGED_BY: "datahall", labels.TRAINING_JOB: job.metadata.name}


def _pin(node: str) -> dict[str, Any]:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [field]}]
            }
        }
    }


def _program(job: TrainingJob, settings: Settings) -> dict[str, Any]:
    container = job.spec.container
    if container is None:
        return {"image": settings.trainer_image, "command": ["python", "-m", "datahall_trainer"]}
    program: dict[str, Any] = {"image": container.image}
    if container.command:
        program["command"] = list(container.command)
    if container.args:
        program["args"] = list(container.args)
    return program


def _environment(
    job: TrainingJob, *, generation: int, rank: int, workers: int, settings: Settings
) -> list[dict[str, str]]:
    name, namespace, spec = job.metadata.name, job.metadata.namespace, job.spec
    variables = {
        "DATAHALL_GENERATION": str(generation),
        "DATAHALL_POD_NAME": labels.worker_pod(name, generation, rank),
        "DATAHALL_TOKEN_FILE": f"{TOKEN_DIRECTORY}/token",
        "HOME": "/tmp",  # noqa: S108 - the root file system is read-only
        "PET_NNODES": str(workers),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": str(max(1, spec.resources.gpus)),
    }
    if workers > 1:
        first = labels.worker_pod(name, generation, 0)
        variables["PET_MASTER_ADDR"] = f"{first}.{labels.workers_service(name)}.{namespace}.svc"
        variables["PET_MASTER_PORT"] = str(RENDEZVOUS_PORT)
    if settings.report_url:
        path = f"/v1/namespaces/{namespace}/trainingjobs/{name}/reports"
        variables["DATAHALL_REPORT_URL"] = settings.report_url.rstrip("/") + path
    if spec.container is None:
        variables["DATAHALL_JOB_CONFIG"] = orjson.dumps(trainer_config(job)).decode()
    else:
        variables = {entry.name: entry.value for entry in spec.container.env} | variables
    return [{"name": key, "value": value} for key, value in variables.items()]
