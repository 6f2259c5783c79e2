"""PowerDomains: which of them select a node, what the planner is told of them, and what they are told of themselves."""

from __future__ import annotations

import datetime
from typing import Any

from datahall.api.common import Condition
from datahall.api.conditions import ConditionType, find_condition, set_condition
from datahall.api.powerdomain import PowerDomain
from datahall.api.reasons import Reason
from datahall.control import times
from datahall.planning import PowerDomainSpec, PowerReport

_NODES_NAMED = 3

_STALLED = frozenset(
    {
        Reason.POWER_DOMAIN_PARENT_NOT_FOUND,
        Reason.POWER_DOMAINS_IN_CIRCLE,
        Reason.POWER_DOMAIN_NODES_SHARED,
    }
)
"""Reasons that only a person can mend."""


class Selectors:
    """Which PowerDomains select which nodes."""

    def __init__(self) -> None:
        self._domains: dict[str, PowerDomain] = {}

    def put(self, domain: PowerDomain) -> None:
        """Take in a PowerDomain as it is now."""
        self._domains[domain.metadata.name] = domain

    def remove(self, name: str) -> None:
        """Forget a PowerDomain."""
        self._domains.pop(name, None)

    def of(self, node_labels: dict[str, str]) -> tuple[str, ...]:
        """The names of the PowerDomains that select a node with these labels, sorted."""
        return tuple(sorted(n for n, domain in self._domains.items() if domain.spec.selects(node_labels)))


def spec_of(domain: PowerDomain) -> PowerDomainSpec:
    """A PowerDomain as a node of the power tree."""
    spec = domain.spec
    return PowerDomainSpec(domain.metadata.name, spec.parent, spec.watts, float(spec.margin_percent))


def status(domain: PowerDomain, *, report: PowerReport, now: datetime.datetime) -> dict[str, Any] | None:
    """The new status as JSON, or None if nothing changed.

    Args:
        domain: the PowerDomain with its present status.
        report: where it stands, as the planner has it.
        now: the present time.
    """
    reason, message = _reason(domain, report)
    stalled = reason in _STALLED
    overcommitted = reason is Reason.POWER_DOMAIN_OVERCOMMITTED
    after = domain.status.model_copy(
        update={
            "observed_generation": domain.metadata.generation,
            "state": "Stalled" if stalled else "Overcommitted" if overcommitted else "Ready",
            "conditions": _conditions(domain, reason, message, times.to_text(now)),
            "reserved_watts": report.reserved_watts,
            "available_watts": report.available_watts,
            "nodes": report.nodes,
        }
    )
    return None if after == domain.status else after.to_json()


def _conditions(domain: PowerDomain, reason: Reason, message: str, now: str) -> tuple[Condition, ...]:
    stalled, generation = reason in _STALLED, domain.metadata.generation
    conditions = set_condition(
        domain.status.conditions,
        type_=ConditionType.READY,
        status=not stalled,
        reason=reason,
        message=message,
        generation=generation,
        now=now,
    )
    if not stalled and find_condition(conditions, ConditionType.STALLED) is None:
        return conditions
    return set_condition(
        conditions,
        type_=ConditionType.STALLED,
        status=stalled,
        reason=reason if stalled else Reason.NOT_STALLED,
        message=message if stalled else "",
        generation=generation,
        now=now,
    )


def _reason(domain: PowerDomain, report: PowerReport) -> tuple[Reason, str]:
    """How it stands: what only a person can mend comes first."""
    if report.problem:
        circle, missing = Reason.POWER_DOMAINS_IN_CIRCLE, Reason.POWER_DOMAIN_PARENT_NOT_FOUND
        return circle if report.in_circle else missing, report.problem
    if report.shared:
        return Reason.POWER_DOMAIN_NODES_SHARED, _shared(report)
    over = report.reserved_watts - report.limit_watts
    if over > 0:
        margin = domain.spec.watts - report.limit_watts
        kept = f", {margin} W of it kept as margin" if margin else ""
        return (
            Reason.POWER_DOMAIN_OVERCOMMITTED,
            f"{report.reserved_watts} W are reserved of a budget of {domain.spec.watts} W{kept}: nothing starts until "
            f"{over} W are given back",
        )
    if domain.spec.node_selector is not None and not report.nodes:
        return Reason.POWER_DOMAIN_READY, "no node has the labels of spec.nodeSelector"
    return Reason.POWER_DOMAIN_READY, ""


def _shared(report: PowerReport) -> str:
    nodes = list(report.shared)
    names = ", ".join(nodes[:_NODES_NAMED]) + (", ..." if len(nodes) > _NODES_NAMED else "")
    rivals = sorted({rival for others in report.shared.values() for rival in others})
    number = "1 node is" if len(nodes) == 1 else f"{len(nodes)} nodes are"
    return (
        f"{number} selected by power domain {' and '.join(rivals)} as well, and neither feeds the other ({names}): "
        "nothing starts there until spec.nodeSelector or spec.parent of one is changed"
    )
