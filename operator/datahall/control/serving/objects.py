"""The objects of an InferenceService: a Deployment, a Service and a PodDisruptionBudget, all named like it."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from datahall.api.inferenceservice import InferenceService, PinnedModel
from datahall.control import labels
from datahall.control.child_views import SPEC_HASH
from datahall.control.serving.gate import gpu_affinity
from datahall.control.settings import Settings
from datahall.control.training.pods import (
    TOLERATED,
    claim_mounts,
    claim_volumes,
    claims,
    owner_reference,
    resources,
)
from datahall.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES

PORT = 8080
DRAIN_SECONDS = 5
LOAD_PATIENCE_SECONDS = 600


def selector(service: InferenceService) -> dict[str, str]:
    """Labels that all replicas have, and nothing else has."""
    return {labels.INFERENCE_SERVICE: service.metadata.name}


def server_config(service: InferenceService, model: PinnedModel) -> dict[str, Any]:
    """`DATAHALL_SERVER_CONFIG` (docs/contracts.md)."""
    spec = service.spec
    return {
        "name": service.metadata.name,
        "namespace": service.metadata.namespace,
        "model": {"uri": model.uri, "digest": model.digest},
        "batching": spec.batching.model_dump(mode="json", by_alias=True),
        "timeoutSeconds": float(spec.timeout_seconds),
        "postprocess": spec.postprocess.model_dump(mode="json", by_alias=True),
        "port": PORT,
    }


def deployment(
    service: InferenceService, model: PinnedModel, *, missing: int = 0, settings: Settings
) -> dict[str, Any]:
    """The Deployment. A new replica is ready before an old one goes, so a roll-out loses no request.

    Args:
        service: the service.
        model: the model to serve.
        missing: replicas that have no place, in a roll-out. Only so many fewer than asked for may be available while
            replicas are replaced: else nobody would be replaced before the missing ones are there.
        settings: the operator's settings.
    """
    spec = service.spec
    mounted = claims((model.uri,))
    template = {
        "metadata": {
            "labels": {**selector(service), labels.MANAGED_BY: "datahall", labels.QUEUE: spec.queue}
        },
        "spec": {
            "schedulingGates": [{"name": labels.PLACEMENT_GATE}],
            **({"affinity": gpu_affinity(spec.resources.gpu_models)} if spec.resources.gpu_models else {}),
            "terminationGracePeriodSeconds": DRAIN_SECONDS + spec.timeout_seconds + 30,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
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
                    "name": "server",
                    "image": settings.trainer_image,
                    "imagePullPolicy": settings.image_pull_policy,
                    "command": ["python", "-m", "datahall_server"],
                    "env": [
                        {
                            "name": "DATAHALL_SERVER_CONFIG",
                            "value": orjson.dumps(server_config(service, model)).decode(),
                        },
                        {"name": "DATAHALL_DRAIN_SECONDS", "value": str(DRAIN_SECONDS)},
                        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the root file system is read-only
                    ],
                    "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                    "resources": resources(spec.resources.gpus, spec.resources.cpu, spec.resources.memory),
                    "startupProbe": {
                        "httpGet": {"path": "/health", "port": "http"},
                        "periodSeconds": 2,
                        "failureThreshold": LOAD_PATIENCE_SECONDS // 2,
                    },
                    "readinessProbe": {
                        "httpGet": {"path": "/ready", "port": "http"},
                        "periodSeconds": 2,
                        "timeoutSeconds": 5,
                        "failureThreshold": 3,
                    },
                    "livenessProbe": {
                        "httpGet": {"path": "/health", "port": "http"},
                        "periodSeconds": 10,
                        "timeoutSeconds": 5,
                        "failureThreshold": 6,
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
                        *claim_mounts(mounted, ()),
                    ],
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                *claim_volumes(mounted, ()),
            ],
        },
    }
    return _with_hash(
        {
            "apiVersion": DEPLOYMENTS.api_version,
            "kind": DEPLOYMENTS.kind,
            "metadata": _metadata(service),
            "spec": {
                "replicas": spec.replicas.min,
                "revisionHistoryLimit": 3,
                "minReadySeconds": 1,
                "progressDeadlineSeconds": LOAD_PATIENCE_SECONDS,
                "selector": {"matchLabels": selector(service)},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": missing, "maxSurge": 1},
                },
                "template": template,
            },
        }
    )


def service_object(service: InferenceService) -> dict[str, Any]:
    """The Service that clients talk to: port 80."""
    return _with_hash(
        {
            "apiVersion": SERVICES.api_version,
            "kind": SERVICES.kind,
            "metadata": _metadata(service),
            "spec": {
                "type": "ClusterIP",
                "selector": selector(service),
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def disruption_budget(service: InferenceService) -> dict[str, Any]:
    """At most one replica at a time goes voluntarily, so that draining nodes does not stop the service."""
    return _with_hash(
        {
            "apiVersion": POD_DISRUPTION_BUDGETS.api_version,
            "kind": POD_DISRUPTION_BUDGETS.kind,
            "metadata": _metadata(service),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector(service)},
            },
        }
    )


def spec_hash(body: dict[str, Any]) -> str:
    """The hash that `_with_hash` put into an object."""
    return str(body["metadata"]["annotations"][SPEC_HASH])


def _metadata(service: InferenceService) -> dict[str, Any]:
    meta = service.metadata
    return {
        "name": meta.name,
        "namespace": meta.namespace,
        "labels": {**selector(service), labels.MANAGED_BY: "datahall"},
        "ownerReferences": [owner_reference("InferenceService", meta.name, meta.uid)],
    }


def _with_hash(body: dict[str, Any]) -> dict[str, Any]:
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    body["metadata"]["annotations"] = {SPEC_HASH: hashlib.sha256(text).hexdigest()[:16]}
    return body
