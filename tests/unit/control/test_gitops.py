"""What docs/gitops.md says tools see: its health check for Argo CD, run on statuses that the operator makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime  # Argo CD's interpreter speaks Lua 5.1

from datahall.api.powerdomain import PowerDomain
from datahall.api.queue import Queue
from datahall.api.reasons import Reason
from datahall.control import power_domains, queues, times
from datahall.control.training.seen import Waiting
from datahall.planning import PowerReport, QueueEntry, QueueReport, QueueUse
from tests.unit.control import serving_world as serving
from tests.unit.control.world import START, SUCCEEDED, World, failed, running

Json = dict[str, Any]
Health = tuple[str, str]

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "gitops.md").read_text(encoding="utf-8")
KINDS = ("TrainingJob", "InferenceService", "Queue", "PowerDomain")


def config_map() -> Json:
    blocks = re.findall(r"```yaml\n(.+?)```", PAGE, flags=re.DOTALL)
    (found,) = [body for block in blocks if "ConfigMap" in block and (body := yaml.safe_load(block))]
    data: Json = found["data"]
    return data


def argo(kind: str, body: Json) -> Health:
    """Health and message as Argo CD has them: the script is given the object as the global `obj`."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.globals().obj = lua.table_from(body, recursive=True)
    answer = lua.execute(config_map()[f"resource.customizations.health.datahall.dev_{kind}"])
    assert set(answer) <= {"status", "message"}
    return str(answer["status"]), str(answer["message"])


def kstatus(body: Json) -> str:
    """What kstatus, and so Flux, makes of an object of a kind that it does not know: its rules, in its order."""
    status = body.get("status") or {}
    if "observedGeneration" in status and status["observedGeneration"] != body["metadata"]["generation"]:
        return "InProgress"
    for condition in status.get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = [c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"]
    return "Current" if set(ready) <= {"True"} else "InProgress"


def waiting() -> Json:
    world = World(room=False)
    world.waiting = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 0 of 2 left")
    world.settle()
    assert world.status.state == "Queued"
    return world.raw


def starting() -> Json:
    world = World()
    world.settle()
    assert world.status.state == "Starting"
    return world.raw


def runs() -> Json:
    return running().raw


def restarting() -> Json:
    world = running()
    world.end(1, 1, failed("UserCode", "KeyError"))
    world.settle()
    assert world.status.state == "Restarting"
    return world.raw


def suspended() -> Json:
    world = running()
    world.edit(suspend=True)
    world.settle()
    assert world.status.state == "Suspended"
    return world.raw


def failed_job() -> Json:
    world = running(workers=1)
    world.end(0, 65, failed("BadInput", "data.train: no such file"))
    world.settle()
    assert world.status.state == "Failed"
    return world.raw


def succeeded() -> Json:
    world = running(workers=1)
    world.end(0, 0, SUCCEEDED)
    world.settle()
    assert world.status.state == "Succeeded"
    return world.raw


def changed_since() -> Json:
    world = running()
    world.edit(priority=7)
    return world.raw


def without_model() -> Json:
    world = serving.World()
    world.job = None
    world.settle()
    return world.raw


def without_replicas() -> Json:
    world = serving.World()
    world.settle()
    return world.raw


def serves() -> Json:
    return serving.serving().raw


def rolls_over() -> Json:
    world = serving.serving()
    world.job = serving.job(state="Succeeded", output=serving.AGAIN, uid="job-2")
    world.settle()
    world.controller(updated=1, ready=2, replicas=3)
    world.settle()
    return world.raw


def scaled_to_zero() -> Json:
    world = serving.World(replicas={"min": 0})
    world.settle()
    world.controller(updated=0, ready=0)
    world.settle()
    assert world.condition("Ready") == ("True", "ScaledToZero")
    return world.raw


def without_hope() -> Json:
    world = serving.World()
    world.job = serving.job(state="Failed", message="no such file")
    world.settle()
    return world.raw


def queue(*, used: int) -> Json:
    body: Json = {
        "metadata": {"name": "team-a", "generation": 3, "uid": "q", "resourceVersion": "1"},
        "spec": {"gpus": [{"model": "Any", "nominal": 4}]},
    }
    body["metadata"]["creationTimestamp"] = times.to_text(START)
    over = max(0, used - 4)
    entry = QueueEntry(nominal=4, used=used, borrowed=over, available=max(0, 4 - used), over=over)
    report = QueueReport(
        gpus={"Any": entry},
        watts=QueueEntry(0, 0, 0, None),
        joules=QueueEntry(0, 0, 0, None),
        share=0.0,
        total_share=0.0,
        waiting=0,
        held=1,
        parent="",
        trouble="",
    )
    use = QueueUse(START.timestamp(), 0.0, 0.0)
    status = queues.status(
        Queue.from_json(body), report=report, use=use, parent_exists=True, held=1, waiting=0, now=START
    )
    return body | {"status": status}


def in_use() -> Json:
    return queue(used=2)


def overcommitted() -> Json:
    return queue(used=6)


def power_domain(*, reserved: int = 0, problem: str = "") -> Json:
    body: Json = {"metadata": {"name": "row-1", "generation": 3, "uid": "p"}, "spec": {"watts": 4000}}
    left = max(0, 4000 - reserved)
    report = PowerReport(4000, reserved, left, nodes=1, problem=problem, in_circle=bool(problem))
    return body | {"status": power_domains.status(PowerDomain.from_json(body), report=report, now=START)}


def within_budget() -> Json:
    return power_domain(reserved=3000)


def above_budget() -> Json:
    return power_domain(reserved=6000)


def in_a_circle() -> Json:
    return power_domain(problem="row-1 -> site -> row-1")


def new() -> Json:
    return World().raw


CASES: list[tuple[str, Callable[[], Json], str, str]] = [
    ("TrainingJob", new, "Progressing", "Current"),
    ("TrainingJob", changed_since, "Progressing", "InProgress"),
    ("TrainingJob", waiting, "Progressing", "InProgress"),
    ("TrainingJob", starting, "Progressing", "InProgress"),
    ("TrainingJob", restarting, "Progressing", "InProgress"),
    ("TrainingJob", runs, "Healthy", "Current"),
    ("TrainingJob", succeeded, "Healthy", "Current"),
    ("TrainingJob", suspended, "Suspended", "Current"),
    ("TrainingJob", failed_job, "Degraded", "Failed"),
    ("InferenceService", without_model, "Progressing", "InProgress"),
    ("InferenceService", without_replicas, "Progressing", "InProgress"),
    ("InferenceService", rolls_over, "Progressing", "InProgress"),
    ("InferenceService", serves, "Healthy", "Current"),
    ("InferenceService", scaled_to_zero, "Healthy", "Current"),
    ("InferenceService", without_hope, "Degraded", "Failed"),
    ("Queue", in_use, "Healthy", "Current"),
    ("Queue", overcommitted, "Healthy", "Current"),
    ("PowerDomain", within_budget, "Healthy", "Current"),
    ("PowerDomain", above_budget, "Healthy", "Current"),
    ("PowerDomain", in_a_circle, "Degraded", "Failed"),
]


@pytest.mark.parametrize(
    ("kind", "make", "argo_says", "kstatus_says"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_tools_see_what_the_page_says(kind, make, argo_says, kstatus_says):
    body = make()
    assert argo(kind, body)[0] == argo_says
    assert kstatus(body) == kstatus_says


def test_the_message_is_the_one_that_a_person_needs():
    assert "no such file" in argo("TrainingJob", failed_job())[1]
    assert argo("TrainingJob", succeeded())[1] == "Succeeded"
    assert "6 of 4" in argo("Queue", overcommitted())[1]
    assert "6000 W are reserved" in argo("PowerDomain", above_budget())[1]
    assert "row-1 -> site" in argo("PowerDomain", in_a_circle())[1]
    assert "TrainingJob digits" in argo("InferenceService", without_model())[1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_the_operator_cannot_read_is_degraded_until_it_is_changed(kind):
    """All that is written of such an object is this one condition: reconcilers.py."""
    condition = {"type": "Stalled", "status": "True", "message": "breaks a rule", "observedGeneration": 2}
    body: Json = {"metadata": {"generation": 2}, "status": {"conditions": [condition]}}
    assert argo(kind, body) == ("Degraded", "breaks a rule")
    body["metadata"]["generation"] = 3
    assert argo(kind, body)[0] == "Progressing"


def test_an_old_stall_says_nothing_of_a_new_spec():
    body = without_hope()
    body["metadata"]["generation"] += 1
    assert argo("InferenceService", body)[0] == "Progressing"


def test_each_kind_has_its_check():
    prefix = "resource.customizations.health.datahall.dev_"
    assert {key.removeprefix(prefix) for key in config_map() if key.startswith(prefix)} == set(KINDS)


def test_the_pages_table_says_what_the_cases_say():
    rows = [
        line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line
    ]
    told = {(argo_.strip(), re.split(r"[:,]", flux)[0].strip()) for _, argo_, flux in rows[1:]}
    assert told == {case[2:] for case in CASES}
