"""What the chart makes of its values, without a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.apiserver  # needs a compiled helm, as those tests need a compiled API server

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "datahall"
NAMESPACE = "hall"

Objects = dict[tuple[str, str], dict[str, Any]]


def operator_pod(objects: Objects) -> dict[str, Any]:
    return objects["Deployment", "datahall-operator"]["spec"]["template"]["spec"]


def environment(objects: Objects) -> dict[str, Any]:
    (container,) = operator_pod(objects)["containers"]
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]
    }


def rules(role: dict[str, Any]) -> dict[str, set[str]]:
    """`group/resource` -> verbs."""
    found: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def test_helm_lint_finds_nothing(helm):
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_default_installs_this_and_no_more(render):
    assert sorted(render()) == [
        ("ClusterRole", "datahall-editor"),
        ("ClusterRole", "datahall-operator"),
        ("ClusterRole", "datahall-power-editor"),
        ("ClusterRole", "datahall-power-viewer"),
        ("ClusterRole", "datahall-queue-editor"),
        ("ClusterRole", "datahall-queue-viewer"),
        ("ClusterRole", "datahall-viewer"),
        ("ClusterRoleBinding", "datahall-operator"),
        ("CustomResourceDefinition", "inferenceservices.datahall.dev"),
        ("CustomResourceDefinition", "powerdomains.datahall.dev"),
        ("CustomResourceDefinition", "queues.datahall.dev"),
        ("CustomResourceDefinition", "trainingjobs.datahall.dev"),
        ("Deployment", "datahall-operator"),
        ("FlowSchema", "datahall-operator"),
        ("NetworkPolicy", "datahall-operator"),
        ("Pod", "datahall-operator-test"),
        ("PodDisruptionBudget", "datahall-operator"),
        ("PriorityClass", "datahall-training"),
        ("Role", "datahall-operator"),
        ("RoleBinding", "datahall-operator"),
        ("Service", "datahall-operator"),
        ("ServiceAccount", "datahall-operator"),
    ]


def test_everything_can_be_switched_off(render):
    objects = render(
        replicas=1,
        crds={"enabled": False},
        serviceAccount={"create": False, "name": "mine"},
        priorityClass={"create": False},
        flowSchema={"create": False},
        networkPolicy={"enabled": False},
    )
    kinds = {kind for kind, _ in objects}
    assert kinds == {
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Service",
        "Deployment",
        "Pod",
    }
    assert operator_pod(objects)["serviceAccountName"] == "mine"
    assert objects["RoleBinding", "datahall-operator"]["subjects"][0]["name"] == "mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"images": {"operator": {"tags": "x"}}}, "additional properties 'tags' not allowed"),
        ({"crds": {"kept": True}}, "additional properties 'kept' not allowed"),
        ({"networkPolicy": {"enable": True}}, "additional properties 'enable' not allowed"),
        ({"replicas": "2"}, "got string, want integer"),
        ({"replicas": -1}, "minimum"),
        ({"logLevel": "loud"}, "value must be one of"),
        ({"images": {"trainer": {"digest": "abc"}}}, "does not match pattern"),
        ({"serviceAccount": {"create": False}}, "name"),
        ({"priorityClass": {"name": ""}}, "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_a_mistake_in_the_values_is_refused(values, message, helm, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    result = helm("template", "release", str(CHART), "--values", str(file))
    assert result.returncode != 0
    assert message in result.stderr


def test_the_schema_is_closed_wherever_the_chart_reads_a_name():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def open_objects(node: Any, path: str) -> list[str]:
        found = []
        if isinstance(node, dict):
            if (
                node.get("properties")
                and node.get("type") == "object"
                and node.get("additionalProperties") is not False
            ):
                found.append(path)
            for key, child in node.items():
                found += open_objects(child, f"{path}/{key}")
        return found

    assert open_objects(schema, "") == []


def test_every_value_is_in_the_schema_and_has_a_comment():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert schema["properties"].keys() - {"global"} == values.keys()
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False)
        if re.match(r"\s*\w+:", line)
        and not before.strip().startswith("#")
        # A group of commented values speaks for itself.
        and not (line.endswith(":") and (after.strip().startswith("#") or after.rstrip().endswith(":")))
        and "requests" not in line
        and "limits" not in line
        and not re.match(r"\s+(cpu|memory|grafana_dashboard):", line)
    ]
    assert bare == []


@pytest.mark.parametrize(
    "where",
    [("Deployment", "datahall-operator"), ("Pod", "datahall-operator-test")],
    ids=lambda where: where[0],
)
def test_pods_meet_the_restricted_standard(where, render):
    body = render()[where]
    pod = body["spec"]["template"]["spec"] if where[0] == "Deployment" else body["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container["resources"].keys()
    assert all(volume.keys() - {"name"} == {"emptyDir"} for volume in pod.get("volumes", []))


def test_the_operator_is_told_what_it_needs(render):
    objects = render(
        images={"trainer": {"repository": "local/trainer", "tag": "7", "pullPolicy": "Never"}},
        logLevel="debug",
    )
    assert environment(objects) == {
        "POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "POD_IP": {"fieldRef": {"fieldPath": "status.podIP"}},
        "DATAHALL_TRAINER_IMAGE": "local/trainer:7",
        "DATAHALL_IMAGE_PULL_POLICY": "Never",
        "DATAHALL_PRIORITY_CLASS": "datahall-training",
        "DATAHALL_REPORT_URL": f"http://datahall-operator.{NAMESPACE}.svc:8080",
        "DATAHALL_LOG_LEVEL": "debug",
    }


def test_the_report_url_leads_to_the_operator(render):
    objects = render()
    service = objects["Service", "datahall-operator"]
    deployment = objects["Deployment", "datahall-operator"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in operator_pod(objects)["containers"][0]["ports"]}
    assert {port["port"]: ports[port["targetPort"]] for port in service["spec"]["ports"]} == {
        8080: 8080,
        8081: 8081,
    }


def test_a_digest_counts_instead_of_a_tag(render):
    digest = "sha256:" + "0" * 64
    objects = render(images={"operator": {"repository": "local/operator", "tag": "x", "digest": digest}})
    assert operator_pod(objects)["containers"][0]["image"] == f"local/operator@{digest}"


def test_no_value_changes_the_selector(render):
    plain = render()["Deployment", "datahall-operator"]["spec"]["selector"]
    dressed = render(podLabels={"team": "platform", "app.kubernetes.io/component": "x"}, logLevel="debug")
    deployment = dressed["Deployment", "datahall-operator"]["spec"]
    assert deployment["selector"] == plain
    assert plain["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()


def test_one_replica_needs_no_disruption_budget(render):
    assert ("PodDisruptionBudget", "datahall-operator") in render(replicas=2)
    assert ("PodDisruptionBudget", "datahall-operator") not in render(replicas=1)


def test_definitions_are_those_of_crds_and_are_kept(render):
    objects = render()
    for file in (ROOT / "crds").glob("*.yaml"):
        wanted = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = objects["CustomResourceDefinition", wanted["metadata"]["name"]]
        assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert found == wanted


def test_definitions_can_be_left_to_go_with_the_release(render):
    definition = render(crds={"keep": False})["CustomResourceDefinition", "queues.datahall.dev"]
    assert "annotations" not in definition["metadata"]


def test_the_operator_may_do_this_and_no_more(render):
    read = {"get", "list", "watch"}
    watch = {"list", "watch"}
    apply = watch | {"get", "create", "patch"}
    assert rules(render()["ClusterRole", "datahall-operator"]) == {
        "datahall.dev/trainingjobs": read | {"delete"},
        "datahall.dev/inferenceservices": read,
        "datahall.dev/queues": read,
        "datahall.dev/powerdomains": read,
        "datahall.dev/trainingjobs/status": {"patch"},
        "datahall.dev/inferenceservices/status": {"patch"},
        "datahall.dev/queues/status": {"patch"},
        "datahall.dev/powerdomains/status": {"patch"},
        "datahall.dev/trainingjobs/finalizers": {"update"},
        "datahall.dev/inferenceservices/finalizers": {"update"},
        "/pods": read | {"create", "patch", "delete"},
        "/services": apply,
        "apps/deployments": apply,
        "policy/poddisruptionbudgets": apply,
        "/nodes": watch,
        "/persistentvolumeclaims": watch,
        "/namespaces": watch,
        "storage.k8s.io/storageclasses": watch,
        "events.k8s.io/events": {"create", "patch"},
        "authentication.k8s.io/tokenreviews": {"create"},
        "apiextensions.k8s.io/customresourcedefinitions": watch,
    }
    assert rules(render()["Role", "datahall-operator"]) == {
        "coordination.k8s.io/leases": {"get", "create", "update"}
    }


def test_no_role_has_a_wildcard_or_touches_secrets(render):
    for (kind, name), body in render().items():
        if kind in {"ClusterRole", "Role"}:
            for resource, verbs in rules(body).items():
                assert "*" not in resource, name
                assert "*" not in verbs, name
                assert "secrets" not in resource, name


def test_people_get_the_kinds_through_the_clusters_own_roles(render):
    viewer = render()["ClusterRole", "datahall-viewer"]
    assert viewer["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {verb for verbs in rules(viewer).values() for verb in verbs} == {"get", "list", "watch"}
    editor = rules(render()["ClusterRole", "datahall-editor"])
    assert "patch" in editor["datahall.dev/inferenceservices/scale"]
    assert not any("status" in resource and verbs != {"get"} for resource, verbs in editor.items())
    apart = render(rbac={"aggregateToUserRoles": False})["ClusterRole", "datahall-viewer"]
    assert not any("aggregate" in label for label in apart["metadata"]["labels"])


def test_training_never_preempts(render):
    assert render()["PriorityClass", "datahall-training"]["preemptionPolicy"] == "Never"


def test_a_priority_class_of_ones_own_or_none_is_used(render):
    own = render(priorityClass={"create": False, "name": "batch"})
    assert environment(own)["DATAHALL_PRIORITY_CLASS"] == "batch"
    none = render(priorityClass={"create": False, "name": ""})
    assert "DATAHALL_PRIORITY_CLASS" not in environment(none)


def test_the_operator_reads_every_variable_that_it_is_given(render):
    settings = (ROOT / "operator" / "datahall" / "control" / "settings.py").read_text(encoding="utf-8")
    assert [name for name in environment(render()) if not re.search(rf"[\"']{name}[\"']", settings)] == []


def test_the_network_policy_lets_in_reports_and_metrics_and_lets_out_dns_and_the_api_server(render):
    spec = render(networkPolicy={"apiServerPorts": [7443]})["NetworkPolicy", "datahall-operator"]["spec"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == ["reports", "metrics"]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 7443]
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_monitoring_is_made_when_asked_for(render):
    objects = render(
        serviceMonitor={"enabled": True, "labels": {"prometheus": "main"}}, dashboard={"enabled": True}
    )
    monitor = objects["ServiceMonitor", "datahall-operator"]
    service = objects["Service", "datahall-operator"]
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    dashboard = objects["ConfigMap", "datahall-operator-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    panels = json.loads(dashboard["data"]["datahall.json"])["panels"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)


def test_placement_values_reach_the_pod(render):
    values = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
    }
    assert values.items() <= operator_pod(render(**values)).items()


def test_no_file_of_the_chart_names_a_registry():
    for file in CHART.rglob("*.yaml"):
        assert not re.search(
            r"\b(docker\.io|ghcr\.io|quay\.io|gcr\.io)\b", file.read_text(encoding="utf-8")
        ), file
