"""Replicas before the planner: what a pod is, who waits, who holds what, what a new leader finds."""

from __future__ import annotations

import pytest

from datahall.control import times
from datahall.control.replicas import WAITS_TOLD_ANEW_SECONDS, is_replica
from datahall.control.scheduling import News
from datahall.control.serving import gate
from datahall.control.serving.gate import Standing, standing
from datahall.control.serving.seen import Answers
from datahall.control.views import pod_view
from tests.unit.control.hall import Hall
from tests.unit.control.replica_world import GATE, LABELS, Service, gate_affinity, pinned
from tests.unit.control.world import START, merged

pytestmark = pytest.mark.looptime

FIELD = {"key": "metadata.name", "operator": "NotIn", "values": ["other"]}


# ---- what a pod is


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"spec": GATE}, Standing.WAITS),
        ({"spec": {"schedulingGates": [*GATE["schedulingGates"], {"name": "theirs"}]}}, Standing.NEITHER),
        ({"spec": {"schedulingGates": [{"name": "theirs"}], **pinned("n")}}, Standing.NEITHER),
        ({"spec": GATE, "metadata": {"deletionTimestamp": times.to_text(START)}}, Standing.NEITHER),
        ({"spec": pinned("node-0")}, Standing.HOLDS),
        ({"spec": {"nodeName": "node-0"}}, Standing.HOLDS),
        (
            {"spec": {"nodeName": "n"}, "metadata": {"deletionTimestamp": times.to_text(START)}},
            Standing.HOLDS,
        ),
        ({"spec": {"nodeName": "node-0"}, "status": {"phase": "Failed"}}, Standing.NEITHER),
        ({"spec": {}}, Standing.NEITHER),
    ],
    ids=[
        "gated",
        "by others too",
        "by others",
        "leaves unplaced",
        "pinned",
        "bound",
        "leaves",
        "ended",
        "old",
    ],
)
def test_where_a_replica_stands_is_read_off_its_pod(over, expected):
    body = {
        "metadata": {"name": "r", "namespace": "a", "uid": "u", "resourceVersion": "1"},
        "spec": {"containers": []},
        "status": {"phase": "Pending"},
    }
    body["metadata"]["creationTimestamp"] = times.to_text(START)
    assert standing(pod_view(merged(body, over))) is expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([], [{"matchFields": ["PIN"]}]),
        ([{"matchExpressions": ["a"]}], [{"matchExpressions": ["a"], "matchFields": ["PIN"]}]),
        ([{"matchFields": [FIELD]}], [{"matchFields": [FIELD, "PIN"]}]),
        (
            [{"matchExpressions": ["a"]}, {"matchExpressions": ["b"]}],
            [
                {"matchExpressions": ["a"], "matchFields": ["PIN"]},
                {"matchExpressions": ["b"], "matchFields": ["PIN"]},
            ],
        ),
    ],
)
async def test_a_pin_adds_to_what_the_pod_requires_and_takes_nothing_away(terms, expected):
    service = Service()
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    service.make("r-1", gpus=0, spec={"affinity": {"nodeAffinity": required}} if terms else {})
    body = gate.place(service.view("r-1"), "node-0", START).body
    pin = {"key": "metadata.name", "operator": "In", "values": ["node-0"]}
    written = body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for term in expected:
        term["matchFields"] = [pin if field == "PIN" else field for field in term["matchFields"]]
    assert written["nodeSelectorTerms"] == expected
    assert body["spec"]["schedulingGates"] is None
    assert body["metadata"]["resourceVersion"] == service.pods["r-1"]["metadata"]["resourceVersion"]


async def test_the_models_that_a_replica_may_have_are_those_of_its_template():
    service = Service()
    service.make("r-1", spec=gate_affinity("H100", "A100"))
    assert gate.gpu_models(service.view("r-1")) == ("H100", "A100")
    service.make("r-2")
    assert gate.gpu_models(service.view("r-2")) == ()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (LABELS, True),
        ({"datahall.dev/inference-service": "digits"}, False),
        ({"datahall.dev/queue": "team-a"}, False),
        (LABELS | {"datahall.dev/training-job": "digits"}, False),
    ],
)
async def test_a_replica_is_what_a_service_has_and_a_queue_pays_for(labels, expected):
    hall = Hall()
    hall.pod("r", labels=labels)
    assert is_replica(hall.tables.pods.get("team-a", "r")) is expected


# ---- its life


async def test_a_gated_replica_gets_a_place_which_its_queue_pays_for_until_it_is_gone():
    service = Service()
    service.make("r-1")
    news = service.cycle()
    assert news == [News("team-a", "digits", urgent=True, kind="InferenceService")]
    assert service.hall.used == 4
    assert service.lift() == {"r-1"}
    assert service.view("r-1").node == "node-0"
    assert service.review() == Answers(), "nothing is left to be written"
    service.bind("r-1")
    service.leave("r-1")
    assert service.hall.used == 4, "it answers what it has"
    service.gone("r-1")
    assert service.hall.used == 0


async def test_as_many_start_as_the_quota_pays_for_and_the_others_say_why_they_wait():
    service = Service(nominal=8, gpus=4)
    for name in ("r-1", "r-2", "r-3"):
        service.make(name)
    service.cycle()
    assert service.lift() == {"r-1", "r-2"}
    assert service.waits() == {"r-3": "QuotaExceeded"}
    service.gone("r-1")
    service.cycle()
    assert service.lift() == {"r-3"}
    assert service.waits() == {}


async def test_jobs_and_replicas_stand_in_one_line():
    service = Service(nominal=8)
    job = service.hall.job(gpus=8, places=True)
    service.hall.worker(job)
    service.hall.settle(job)
    service.make("r-1")
    service.cycle()
    assert service.waits() == {"r-1": "QuotaExceeded"}
    counts = service.hall.scheduling.counts
    assert (counts("team-a").held, counts("team-a").waiting) == (1, 1)
    service.hall.delete_job(job)
    service.hall.delete_pod(service.hall.worker(job))
    service.cycle()
    assert service.lift() == {"r-1"}
    assert (counts("team-a").held, counts("team-a").waiting) == (1, 0)


async def test_a_replica_without_gpus_waits_for_room_as_well():
    service = Service(gpus=0)
    big = {"spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": "500"}}}]}}
    service.make("r-1", **big)
    service.make("r-2", **big)
    service.cycle()
    assert service.lift() == {"r-1"}
    assert service.waits() == {"r-2": "NoRoom"}


async def test_of_two_services_the_one_with_priority_goes_first():
    service = Service(nominal=8, gpus=8)
    service.make("r-1")
    urgent = merged(service.raw, {"metadata": {"name": "urgent", "uid": "svc-2"}, "spec": {"priority": 5}})
    service.hall.tables.services.put(urgent)
    service.make("u-1", metadata={"labels": {"datahall.dev/inference-service": "urgent"}})
    service.cycle()
    assert (service.held("r-1"), service.held("u-1")) == (None, "node-0")


async def test_a_priority_that_is_raised_counts_for_those_that_wait():
    service = Service(nominal=8, gpus=8)
    for name, priority in (("one", 0), ("two", 1)):
        body = merged(service.raw, {"metadata": {"name": name, "uid": name}, "spec": {"priority": priority}})
        service.hall.tables.services.put(body)
        service.make(f"{name}-1", metadata={"labels": {"datahall.dev/inference-service": name}})
    one = merged(service.raw, {"metadata": {"name": "one", "uid": "one", "resourceVersion": "999"}})
    service.hall.tables.services.put(merged(one, {"spec": {"priority": 9}}))
    service.cycle()
    assert service.held("one-1") == "node-0"


@pytest.mark.parametrize("deletion", ["begun", "done"])
async def test_replicas_of_a_service_that_goes_ask_for_nothing(deletion):
    service = Service(nominal=4)
    service.start("r-1")
    service.make("r-2")
    service.cycle()
    assert service.waits() == {"r-2": "QuotaExceeded"}
    if deletion == "begun":
        service.raw["metadata"] |= {"resourceVersion": "999", "deletionTimestamp": times.to_text(START)}
        service.hall.tables.services.put(service.raw)
    else:
        service.hall.tables.services.remove("team-a", "digits", "svc-1")
    assert service.waits() == {}
    assert service.hall.used == 4, "one that serves is charged until it is gone"
    service.gone("r-1")
    service.cycle()
    assert (service.hall.used, service.held("r-2")) == (0, None)


async def test_a_pod_that_goes_before_its_gate_is_lifted_gives_the_place_back():
    service = Service(nominal=4)
    service.make("r-1")
    service.make("r-2")
    service.cycle()
    assert set(service.review().places) == {"r-1"}
    service.gone("r-1")
    service.cycle()
    assert set(service.review().places) == {"r-2"}


async def test_a_replica_of_an_earlier_operator_is_held_once_it_is_bound():
    service = Service()
    service.make("r-1", spec={"schedulingGates": []})
    service.cycle()
    assert (service.hall.used, service.review()) == (0, Answers())
    service.change("r-1", spec={"nodeName": "node-0"})
    assert (service.hall.used, service.held("r-1")) == (4, "node-0")


async def test_what_a_queue_is_charged_for_stays_when_the_node_goes():
    service = Service()
    service.start("r-1")
    service.hall.tables.nodes.remove("", "node-0", "node-node-0")
    service.leave("r-1")
    assert service.hall.scheduling.usage("team-a") == {"H100": 4}


async def test_a_new_leader_finds_what_the_last_one_left_from_the_pods_alone():
    service = Service(nodes=3, nominal=12)
    service.start("bound")
    service.make("pinned")
    service.cycle()
    service.lift()
    service.make("admitted")
    service.cycle()
    assert set(service.review().places) == {"admitted"}, "found, and not written yet"
    service.make("waits")
    service.cycle()
    before = {name: service.held(name) for name in ("bound", "pinned")}
    service.restart()
    assert {name: service.held(name) for name in ("bound", "pinned")} == before
    assert service.held("admitted") is None
    service.cycle()
    assert service.lift() == {"admitted"}
    assert service.waits() == {"waits": "QuotaExceeded"}
    assert service.hall.used == 12


async def test_why_a_replica_waits_is_told_as_it_is_now_even_where_the_planner_has_no_news_of_it():
    service = Service(nominal=12, wanted=3)
    service.start("r-1", "r-2")
    service.make("r-3")
    service.cycle()
    assert service.waits() == {"r-3": "NoRoom"}
    service.hall.quota(nominal=8)
    assert service.cycle() == [], "those in line change their reasons with every start and end of others"
    assert service.waits() == {"r-3": "QuotaExceeded"}
    assert service.review().look_again_seconds == WAITS_TOLD_ANEW_SECONDS + 1
