"""Alerts and dashboard: every query is one, of metrics, labels and words that the operator has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from prometheus_client.metrics import MetricWrapperBase

from datahall.control import metrics

pytestmark = pytest.mark.apiserver  # needs a compiled helm, as those tests need a compiled API server

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "datahall"
# Where the operator says these words; a query that names another can never find anything.
WORDS = {
    "outcome": ["operator.py", "web.py"],
    "decision": ["scheduling.py"],
    "state": ["operator.py"],
}
ENDINGS = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
# What Prometheus adds to every series of a target of the Prometheus operator.
OF_THE_TARGET = {"instance", "job", "namespace", "pod", "container", "service"}
OF_THE_PROCESS = {"process_resident_memory_bytes"}


def series() -> dict[str, set[str]]:
    """Names that Prometheus sees -> labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            for ending in ENDINGS[family.type]:
                extra = {"le"} if ending == "_bucket" else set()
                found[name + ending] = set(metric._labelnames) | extra
    return found


def selectors(query: str) -> list[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def keep(expression: promql.Expr) -> None:
        if isinstance(expression, promql.MatrixSelector):
            expression = expression.vector_selector
        if isinstance(expression, promql.VectorSelector):
            found.append(expression)

    promql.walk(promql.parse(query), keep)
    return found


def grouped_by(query: str) -> list[tuple[promql.Expr, set[str]]]:
    """The aggregations of a query, with the labels that they keep."""
    found: list[tuple[promql.Expr, set[str]]] = []

    def keep(expression: promql.Expr) -> None:
        if isinstance(expression, promql.AggregateExpr) and expression.modifier:
            found.append((expression.expr, set(expression.modifier.labels)))

    promql.walk(promql.parse(query), keep)
    return found


def dashboard_queries() -> list[str]:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


@pytest.fixture
def rules(render) -> dict[str, dict[str, Any]]:
    rule = render(prometheusRule={"enabled": True})["PrometheusRule", "datahall-operator"]
    (group,) = rule["spec"]["groups"]
    return {alert["alert"]: alert for alert in group["rules"]}


@pytest.fixture
def queries(rules) -> list[str]:
    return [*dashboard_queries(), *(rule["expr"] for rule in rules.values())]


def test_every_query_asks_for_series_and_labels_that_there_are(queries):
    known = series()
    asked = [selector for query in queries for selector in selectors(query)]
    assert {selector.name for selector in asked} >= {"datahall_leader", "datahall_reconcile_total"}
    for selector in asked:
        assert selector.name in known.keys() | OF_THE_PROCESS, selector
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known.get(selector.name, set()) | OF_THE_TARGET, selector


def test_every_query_groups_by_labels_that_its_series_have(queries):
    known = series()
    groups = [group for query in queries for group in grouped_by(query)]
    assert groups
    for inner, labels in groups:
        # Of several, the first: what stands behind an `and` only filters.
        first = selectors(inner.prettify())[0].name
        assert labels <= known.get(first, set()) | OF_THE_TARGET, inner.prettify()


def test_every_word_that_a_query_looks_for_is_one_that_the_operator_says(queries):
    looked_for = {
        (matcher.name, word)
        for query in queries
        for selector in selectors(query)
        for matcher in selector.matchers.matchers
        if matcher.name in WORDS
        for word in matcher.value.split("|")
    }
    assert {("outcome", "crash"), ("decision", "admit"), ("state", "Queued")} <= looked_for
    for label, word in looked_for:
        sources = [ROOT / "operator" / "datahall" / "control" / file for file in WORDS[label]]
        assert any(f'"{word}"' in source.read_text(encoding="utf-8") for source in sources), (label, word)


def test_the_queue_is_that_of_the_leader(queries):
    """A standby fills its queue as well, and works on none of it."""
    of_the_queue = [query for query in queries if re.search(r"datahall_queue_(depth|oldest)", query)]
    assert len(of_the_queue) == 2
    for query in of_the_queue:
        assert "and on (instance) datahall_leader == 1" in query


def test_alerts_are_made_only_when_asked_for(render):
    assert not any(kind == "PrometheusRule" for kind, _ in render())
    values = {"enabled": True, "labels": {"prometheus": "main"}, "jobsWaitFor": "2d"}
    rule = render(prometheusRule=values)["PrometheusRule", "datahall-operator"]
    assert rule["metadata"]["labels"]["prometheus"] == "main"
    (waits,) = [r for r in rule["spec"]["groups"][0]["rules"] if r["alert"] == "DatahallJobsWaitLong"]
    assert waits["for"] == "2d"
    assert waits["annotations"]["summary"].endswith("not one was admitted for 2d.")


def test_a_time_that_prometheus_cannot_read_is_refused(helm):
    flags = ["--set", "prometheusRule.enabled=true", "--set", "prometheusRule.jobsWaitFor=6 hours"]
    result = helm("template", "release", str(CHART), *flags)
    assert result.returncode != 0
    assert "does not match pattern" in result.stderr


def test_each_alert_says_what_it_means_and_where_to_read_on(rules):
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert len(rule["annotations"]["summary"]) > 30
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == name.lower()
        assert f"\n### {name}\n" in (ROOT / page).read_text(encoding="utf-8")
        assert f"| `{name}` | {rule['labels']['severity']} |" in operations


def test_no_heading_speaks_of_an_alert_that_is_gone(rules):
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", text[text.index("## By alert") :], flags=re.MULTILINE)
    assert headings == list(rules)
