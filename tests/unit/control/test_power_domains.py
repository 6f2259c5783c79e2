"""From PowerDomain objects and node labels to what starts, and back to what a PowerDomain's status says."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from datahall.api.powerdomain import PowerDomain
from datahall.control import power_domains
from datahall.control.dispatch import (
    ALL_POWER_DOMAINS,
    POWER_DOMAIN,
    POWER_STATUS_AFTER_SECONDS,
    POWER_STATUS_EVERY_SECONDS,
    POWER_STATUS_LONGEST_SECONDS,
)
from datahall.control.workqueue import Key
from datahall.kube import Resource
from datahall.planning import PowerReport
from tests.unit.control.hall import Hall, Json

pytestmark = pytest.mark.looptime

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.UTC)
A_NODE_WATTS = 5600
"""8 H100 at the default limit of their data sheet."""


def put(hall: Hall, name: str, watts: int, *, rack: str | None = None, **spec: Any) -> Json:
    """A PowerDomain, new or changed, that feeds a rack if one is named."""
    version = next(hall._versions)
    selector = {} if rack is None else {"nodeSelector": {"datahall.dev/rack": rack}}
    metadata = hall.meta(name, "", f"power-{name}") | {"generation": version, "resourceVersion": str(version)}
    body = {"metadata": metadata, "spec": {"watts": watts, **selector, **spec}}
    hall.tables.power_domains.put(body)
    return body


def relabel(hall: Hall, node: str, rack: str) -> None:
    hall.node(node, metadata={"labels": {"nvidia.com/gpu.product": "H100", "datahall.dev/rack": rack}})


def told(hall: Hall, name: str) -> Json | None:
    view = hall.tables.power_domains.get("", name)
    assert view is not None
    assert view.domain is not None
    report = hall.scheduling.power_report(name)
    assert report is not None
    return power_domains.status(view.domain, report=report, now=NOW)


def starts(hall: Hall) -> bool:
    """Whether a new job of a whole node does; one that does not is withdrawn."""
    job = hall.job(f"job-{next(hall._uids)}")
    hall.settle(job)
    hall.cycle()
    admitted = hall.admitted(job)
    if not admitted:
        hall.delete_job(job)
    return admitted


class TestFeed:
    async def test_a_job_starts_only_within_the_budget_of_its_rack(self):
        hall = Hall(nodes=0, nominal=64)
        relabel(hall, "a", "one")
        put(hall, "rack-one", A_NODE_WATTS - 1, rack="one")
        job = hall.job()
        hall.settle(job)
        hall.cycle()
        assert hall.reason(job) == "PowerBudgetExceeded"
        waiting = hall.scheduling.waiting(job["metadata"]["uid"])
        assert waiting is not None
        assert waiting.message == (
            "needs 5600 W under power domain rack-one, which has 5599 W left, 1 W too few (0 of 5599 W reserved)"
        )
        wakes = hall.wakes
        put(hall, "rack-one", A_NODE_WATTS, rack="one")
        assert hall.wakes > wakes
        hall.cycle()
        assert hall.admitted(job)

    async def test_a_domain_that_is_deleted_limits_nothing(self):
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        body = put(hall, "rack-one", 0, rack="one")
        assert not starts(hall)
        hall.tables.power_domains.remove("", "rack-one", body["metadata"]["uid"])
        assert starts(hall)

    async def test_nodes_may_come_after_their_domain(self):
        hall = Hall(nodes=0)
        put(hall, "rack-one", 0, rack="one")
        relabel(hall, "a", "one")
        assert not starts(hall)

    async def test_a_node_with_another_label_is_fed_by_another_domain(self):
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        put(hall, "rack-one", 0, rack="one")
        put(hall, "rack-two", 10_000, rack="two")
        assert not starts(hall)
        relabel(hall, "a", "two")
        assert starts(hall)
        assert (told(hall, "rack-one") or {})["nodes"] == 0
        two = told(hall, "rack-two") or {}
        assert (two["nodes"], two["reservedWatts"], two["availableWatts"]) == (1, A_NODE_WATTS, 4400)

    async def test_a_domain_with_another_selector_feeds_other_nodes(self):
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        put(hall, "rack", 0, rack="one")
        assert not starts(hall)
        put(hall, "rack", 0, rack="two")
        assert starts(hall)

    async def test_a_parent_counts_what_its_children_feed(self):
        hall = Hall(nodes=0, nominal=64)
        relabel(hall, "a", "one")
        relabel(hall, "b", "two")
        put(hall, "rack-one", 9000, rack="one", parent="site")
        put(hall, "rack-two", 9000, rack="two", parent="site")
        put(hall, "site", 9000)
        assert starts(hall)
        assert not starts(hall), "the other rack has watts, the site has not"
        site = told(hall, "site") or {}
        assert (site["nodes"], site["reservedWatts"], site["availableWatts"]) == (2, A_NODE_WATTS, 3400)

    async def test_a_node_that_two_domains_select_starts_nothing_and_both_say_so(self):
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        put(hall, "by-rack", 9000, rack="one")
        put(hall, "by-model", 9000, nodeSelector={"nvidia.com/gpu.product": "H100"})
        assert not starts(hall)
        for name, other in (("by-rack", "by-model"), ("by-model", "by-rack")):
            conditions = {c["type"]: c for c in (told(hall, name) or {})["conditions"]}
            assert conditions["Stalled"]["reason"] == "PowerDomainNodesShared"
            assert conditions["Stalled"]["message"] == (
                f"1 node is selected by power domain {other} as well, and neither feeds the other (a): nothing "
                "starts there until spec.nodeSelector or spec.parent of one is changed"
            )
        put(hall, "by-rack", 9000, rack="one", parent="by-model")
        assert starts(hall), "one feeds the other now"

    async def test_a_stored_domain_that_cannot_be_understood_limits_nothing(self):
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        put(hall, "rack-one", -1, rack="one")
        assert starts(hall)


class TestKeys:
    @pytest.fixture
    async def hall(self) -> Hall:
        hall = Hall(nodes=0)
        relabel(hall, "a", "one")
        put(hall, "rack-one", 9000, rack="one")
        hall.queue_keys()
        return hall

    async def test_a_changed_domain_is_looked_at_at_once_and_the_others_soon(self, hall):
        put(hall, "rack-one", 8000, rack="one")
        assert hall.delayed_keys() == {(POWER_DOMAIN, ""): POWER_STATUS_AFTER_SECONDS}
        assert hall.queue_keys() == {(POWER_DOMAIN, "rack-one")}

    async def test_a_job_leads_to_one_look_at_all_domains(self, hall):
        hall.job()
        assert hall.delayed_keys()[POWER_DOMAIN, ""] == POWER_STATUS_AFTER_SECONDS
        assert (POWER_DOMAIN, "rack-one") not in hall.queue_keys()

    @pytest.mark.parametrize(
        ("domains", "longest"),
        [
            pytest.param(1, POWER_STATUS_EVERY_SECONDS, id="one domain, soon again"),
            pytest.param(3, 3 * POWER_STATUS_EVERY_SECONDS, id="the more domains, the less often"),
            pytest.param(100, POWER_STATUS_LONGEST_SECONDS, id="but not for ever"),
        ],
    )
    async def test_where_watts_never_rest_the_statuses_follow_less_often(self, hall, domains, longest):
        for number in range(1, domains):
            put(hall, f"other-{number}", 9000, rack=f"other-{number}")
        hall.queue_keys()
        hall.dispatch.power_told()
        hall.job()
        assert longest - 1 < hall.delayed_keys()[POWER_DOMAIN, ""] <= longest

    async def test_without_domains_nothing_is_looked_at(self):
        hall = Hall()
        hall.job()
        assert (POWER_DOMAIN, "") not in hall.delayed_keys()

    async def test_a_nodes_heartbeat_is_no_news_and_its_label_is(self, hall):
        hall.node("a", metadata={"labels": {"datahall.dev/rack": "one"}}, status={"images": []})
        assert (POWER_DOMAIN, "") not in hall.delayed_keys()
        relabel(hall, "a", "two")
        assert (POWER_DOMAIN, "") in hall.delayed_keys()

    async def test_only_domains_with_news_are_written_and_only_once(self, hall):
        put(hall, "rack-two", 9000, rack="two")
        hall.queue_keys()
        written = []

        class Server:
            async def write_status(self, resource: Resource, *, after: Json, meta: Json, **_: Any) -> None:
                written.append((resource.plural, meta["name"]))
                body = hall.tables.power_domains.get("", meta["name"]).domain.to_json()
                body["metadata"] |= {"resourceVersion": str(next(hall._versions))}
                hall.tables.power_domains.put(body | {"status": after})

        hall.reconcilers._executor = Server()

        async def look() -> set[tuple[str, str]]:
            await hall.reconcilers.reconcile(ALL_POWER_DOMAINS)
            keys = hall.queue_keys()
            for kind, name in keys:
                await hall.reconcilers.reconcile(Key(kind, "", name))
            return keys

        assert await look() == {(POWER_DOMAIN, "rack-one"), (POWER_DOMAIN, "rack-two")}
        assert sorted(written) == [("powerdomains", "rack-one"), ("powerdomains", "rack-two")]
        assert hall.queue_keys() == set(), "the echo of a status is no news"
        assert await look() == set()
        hall.settle(hall.job())
        hall.cycle()
        hall.queue_keys()
        assert await look() == {(POWER_DOMAIN, "rack-one")}


def domain(status: Json | None = None, **spec: Any) -> PowerDomain:
    body: Json = {
        "metadata": {"name": "rack", "uid": "u", "generation": 3},
        "spec": {"watts": 10_000, **spec},
    }
    return PowerDomain.from_json(body | {"status": status or {}})


def report(**more: Any) -> PowerReport:
    whole: Json = {"limit_watts": 10_000, "reserved_watts": 0, "available_watts": 10_000, "nodes": 2}
    return PowerReport(**{**whole, **more})


class TestStatus:
    def test_it_says_what_is_reserved_and_what_is_left(self):
        status = power_domains.status(
            domain(), report=report(reserved_watts=4000, available_watts=1), now=NOW
        )
        assert status == {
            "observedGeneration": 3,
            "state": "Ready",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "PowerDomainReady",
                    "message": "",
                    "lastTransitionTime": "2026-11-22T16:00:00Z",
                    "observedGeneration": 3,
                }
            ],
            "reservedWatts": 4000,
            "availableWatts": 1,
            "nodes": 2,
        }

    def test_nothing_is_written_where_nothing_changed(self):
        status = power_domains.status(domain(), report=report(), now=NOW)
        later = NOW + datetime.timedelta(hours=1)
        assert power_domains.status(domain(status), report=report(), now=later) is None

    @pytest.mark.parametrize(
        ("spec", "seen", "state", "reason", "message"),
        [
            (
                {"nodeSelector": {"rack": "a"}},
                {"nodes": 0},
                "Ready",
                "PowerDomainReady",
                "no node has the labels of spec.nodeSelector",
            ),
            (
                {"marginPercent": 10},
                {"limit_watts": 9000, "reserved_watts": 9500, "available_watts": 0},
                "Overcommitted",
                "PowerDomainOvercommitted",
                "9500 W are reserved of a budget of 10000 W, 1000 W of it kept as margin: nothing starts until 500 W "
                "are given back",
            ),
            (
                {"parent": "gone"},
                {"problem": "has a parent that does not exist, gone"},
                "Stalled",
                "PowerDomainParentNotFound",
                "has a parent that does not exist, gone",
            ),
            (
                {"parent": "other"},
                {"problem": "rack -> other -> rack", "in_circle": True, "reserved_watts": 99_999},
                "Stalled",
                "PowerDomainsInCircle",
                "rack -> other -> rack",
            ),
            (
                {},
                {"shared": {f"n{i}": ("b", "c") for i in range(5)}},
                "Stalled",
                "PowerDomainNodesShared",
                "5 nodes are selected by power domain b and c as well, and neither feeds the other (n0, n1, n2, ...): "
                "nothing starts there until spec.nodeSelector or spec.parent of one is changed",
            ),
        ],
        ids=["no nodes", "lowered", "no parent", "circle", "shared nodes"],
    )
    def test_what_is_wrong_is_said_with_the_way_out(self, spec, seen, state, reason, message):
        status = power_domains.status(domain(**spec), report=report(**seen), now=NOW)
        assert status is not None
        stalled = state == "Stalled"
        conditions = {c["type"]: c for c in status["conditions"]}
        assert status["state"] == state
        assert conditions["Ready"]["status"] == ("False" if stalled else "True")
        assert (conditions["Ready"]["reason"], conditions["Ready"]["message"]) == (reason, message)
        assert ("Stalled" in conditions) is stalled
        mended = power_domains.status(domain(status, **spec), report=report(), now=NOW)
        assert mended is not None
        after = {c["type"]: c["status"] for c in mended["conditions"]}
        assert (mended["state"], after["Ready"], after.get("Stalled", "False")) == ("Ready", "True", "False")
