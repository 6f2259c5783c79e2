"""Replicas before the planner: who waits, who holds what, what a new leader finds, how a roll-out gets its quota."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.control import times
from datahall.control.replicas import is_replica
from datahall.control.scheduling import News
from datahall.control.serving import gate, patience
from datahall.control.serving.gate import Standing, standing
from datahall.control.serving.patience import Trouble
from datahall.control.serving.seen import Answers
from datahall.control.tables import pods_of_service
from datahall.control.views import PodView, pod_view
from tests.unit.control.hall import Hall
from tests.unit.control.world import START, merged

pytestmark = pytest.mark.looptime

Json = dict[str, Any]

GATE = {"schedulingGates": [{"name": "datahall.dev/placement"}]}
LABELS = {"datahall.dev/inference-service": "digits", "datahall.dev/queue": "team-a"}


FIELD = {"key": "metadata.name", "operator": "NotIn", "values": ["other"]}


def pinned(*nodes: str) -> Json:
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]} for node in nodes]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


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


def gate_affinity(*models: str) -> Json:
    return {"affinity": gate.gpu_affinity(models)}


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


# ---- nodes that refuse


def unschedulable(message: str = "0/2 nodes are available") -> Json:
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"status": {"conditions": [said]}}


async def test_a_node_that_does_not_take_a_replica_is_avoided_by_the_next():
    service = Service(nodes=2)
    service.make("r-1")
    service.cycle()
    service.lift()
    first = service.view("r-1").node
    service.change("r-1", **unschedulable())
    answers = service.review()
    assert answers.refused == {}
    assert answers.look_again_seconds == patience.BIND_PATIENCE_SECONDS + 1
    service.pass_time(31)
    assert service.review().refused == {"r-1": f"node {first}: 0/2 nodes are available"}
    assert service.review().refused, "until it is gone, and it is counted once"
    service.gone("r-1")
    service.make("r-2")
    service.cycle()
    service.lift()
    assert service.view("r-2").node != first
    service.bind("r-2")
    service.pass_time(patience.AVOID_SECONDS)
    service.make("r-3")
    service.make("r-4", gpus=8)
    service.cycle()
    service.lift()
    assert service.view("r-3").node


async def test_after_the_second_refusal_in_a_row_the_next_start_waits_and_a_bound_one_ends_that():
    service = Service(nodes=1, gpus=1)
    service.pass_time(1)
    for number in (1, 2):
        name = f"r-{number}"
        service.make(name)
        service.cycle()
        service.lift()
        assert service.view(name).node == "node-0"
        service.change(name, **unschedulable())
        service.pass_time(31)
        service.review()
        service.gone(name)
        service.pass_time(patience.AVOID_SECONDS if number == 1 else 0)
    service.make("r-3")
    service.cycle()
    assert service.waits() == {"r-3": "PlaceRefused"}
    answers = service.review()
    assert answers.look_again_seconds == patience.BACK_OFF_FIRST_SECONDS + 1
    text = answers.waits["r-3"].message
    assert text.startswith(
        "2 starts in a row were refused; the next is tried at 2026-11-22T16:06:33Z. The last:"
    )
    service.pass_time(31)
    service.review()
    service.cycle()
    assert service.waits() == {"r-3": "NoRoom"}, "the only node is avoided a while longer"
    service.pass_time(patience.AVOID_SECONDS)
    service.review()
    service.cycle()
    assert service.lift() == {"r-3"}
    service.bind("r-3")
    service.make("r-4")
    service.cycle()
    service.lift()
    service.change("r-4", **unschedulable())
    service.pass_time(31)
    service.review()
    service.gone("r-4")
    service.hall.node("node-1")
    service.make("r-5")
    service.cycle()
    assert service.lift() == {"r-5"}, "the first refusal since one was bound"


@pytest.mark.parametrize(("reason", "counts"), [("OutOfcpu", True), ("UnexpectedAdmissionError", True)])
async def test_a_replica_that_the_kubelet_turns_away_is_a_refusal(reason, counts):
    service = Service(nodes=2)
    service.start("r-1")
    first = service.view("r-1").node
    service.change("r-1", status={"phase": "Failed", "reason": reason, "message": "no"})
    answers = service.review()
    assert answers.refused == {}, "it has ended: there is nothing to delete"
    service.make("r-2")
    service.cycle()
    service.lift()
    assert (service.view("r-2").node != first) is counts


async def test_a_gate_that_cannot_be_lifted_gives_the_place_back_and_is_tried_again_later():
    service = Service(nominal=4)
    service.make("r-1")
    service.cycle()
    for _ in range(2):
        assert set(service.review().places) == {"r-1"}
        assert service.hall.replicas.refused_by_api("r-1", "Pod is invalid") == ("team-a", "digits")
        assert service.held("r-1") is None
        service.review()
        service.cycle()
    assert service.waits() == {"r-1": "PlaceRefused"}
    service.pass_time(31)
    service.review()
    service.cycle()
    assert service.lift() == {"r-1"}
    assert service.hall.replicas.refused_by_api("unknown", "x") is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", ""]), st.floats(0, 2000), st.booleans()), min_size=1, max_size=30
    )
)
def test_refusals_never_come_in_a_hot_loop_and_nothing_is_avoided_for_ever(story):
    trouble, now, row = Trouble(), 0.0, 0
    for node, gap, bound in story:
        now += gap
        if bound:
            trouble, row = trouble.bound(), 0
        trouble, row = trouble.refused(node, "no", now), row + 1
        wait = max(trouble.until_seconds - now, 0.0)
        assert (wait > patience.BACK_OFF_FIRST_SECONDS - 0.001) == (row > 1)
        assert wait < patience.BACK_OFF_LONGEST_SECONDS + 0.001
        assert "" not in trouble.avoided(now)
        assert trouble.avoided(now + patience.AVOID_SECONDS + 0.001) == frozenset()


# ---- roll-outs


async def test_a_roll_out_goes_through_quota_where_there_is_some():
    service = Service(nodes=2, nominal=12)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.hall.used == 12


async def test_a_roll_out_with_no_quota_to_spare_goes_on_one_replica_at_a_time():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    for number, old in ((1, "r-1"), (2, "r-2")):
        new = f"s-{number}"
        service.make(new, version="v2")
        service.cycle()
        assert service.lift() == {new}
        service.bind(new)
        assert service.hall.used == 8, "the one that goes pays for it"
        service.leave(old)
        if number == 1:
            service.make("s-early", version="v2")
            service.cycle()
            assert service.lift() == set(), "one after the other, and only when the old one is really gone"
            service.gone("s-early")
        service.gone(old)
        assert service.hall.used == 8
    assert {name: service.held(name) is not None for name in ("s-1", "s-2")} == {"s-1": True, "s-2": True}
    service.make("s-3", version="v2")
    service.cycle()
    assert service.waits() == {"s-3": "QuotaExceeded"}, "one that replaces nobody waits like anybody"


async def test_what_a_leaving_replica_frees_is_not_given_to_another_before_its_successor_has_it():
    service = Service(nodes=3, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.lift()
    job = service.hall.job(gpus=4)
    service.hall.settle(job)
    service.leave("r-1")
    service.cycle()
    service.gone("r-1")
    service.cycle()
    assert not service.hall.admitted(job)
    assert service.hall.used == 8


async def test_a_roll_out_to_larger_replicas_asks_for_the_quota_of_all_of_it():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2", gpus=6)
    service.cycle()
    assert service.waits() == {"s-1": "QuotaExceeded"}


async def test_a_roll_out_to_another_model_asks_for_the_quota_of_that():
    service = Service(nodes=2, nominal=8)
    service.hall.node("a100", metadata={"labels": {"nvidia.com/gpu.product": "A100"}})
    service.start("r-1", "r-2")
    service.make("s-1", version="v2", spec=gate_affinity("A100"))
    service.cycle()
    assert service.lift() == set()
    assert set(service.waits()) == {"s-1"}


async def test_a_roll_out_without_room_in_the_hall_waits_and_ends_nobody():
    service = Service(nodes=1, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.waits() == {"s-1": "NoRoom"}
    service.gone("r-1")
    service.cycle()
    assert service.lift() == {"s-1"}
    assert service.hall.used == 8


async def test_one_that_takes_over_quota_and_is_given_up_leaves_nothing_behind():
    service = Service(nodes=1, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.gone("s-1")
    service.make("t-1", version="v3")
    service.cycle()
    assert service.waits() == {"t-1": "NoRoom"}
    service.gone("r-2")
    service.gone("t-1")
    service.make("r-3")
    service.cycle()
    assert service.lift() == {"r-3"}
    assert service.hall.used == 8


async def test_a_new_leader_in_the_middle_of_a_roll_out_ends_with_the_same():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.lift()
    service.bind("s-1")
    service.restart()
    assert service.hall.used == 12, "all three are there; nothing more starts until one is gone"
    service.leave("r-1")
    service.gone("r-1")
    assert service.hall.used == 8
    service.make("s-2", version="v2")
    service.cycle()
    assert service.lift() == {"s-2"}


async def test_a_service_that_lacks_quota_already_gets_no_replica_more_for_rolling_over():
    service = Service(nodes=3, nominal=8)
    service.start("r-1", "r-2")
    service.make("r-3")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.lift() == {"s-1"}
    service.bind("s-1")
    service.make("s-2", version="v2")
    service.cycle()
    assert service.lift() == set()
    assert service.held("r-3") is None
