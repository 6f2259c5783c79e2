"""PowerDomain: how many watts a part of the hall may draw: a site, a row, a rack.

Domains form a tree by `spec.parent`. Which one feeds a node, and what counts, is in `planning.power_tree`; here is what
people write and what they are shown.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from . import API_VERSION
from .common import Condition, Int, Model, Name, ObjectMeta, Rule, SpecModel, StatusModel, Unique, tree_rules

_MOST_WATTS = 10_000_000_000

_LabelValue = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]


class PowerDomainSpec(SpecModel):
    """What a feed can give, and what it feeds."""

    parent: Annotated[Name | None, Field(examples=["row-1"])] = None
    """The PowerDomain that feeds this one: what is reserved here counts there, too. Absent: it stands at the top."""
    watts: Annotated[Int, Field(ge=0, le=_MOST_WATTS, examples=[40000])]
    """The budget, in watts: the most that all GPUs below it may draw at their power caps. Leave out of it what nodes
    draw besides (CPUs, fans, GPUs that idle). Lowered below what is reserved, it ends nothing; new work waits. 0 starts
    nothing."""
    margin_percent: Annotated[Int, Field(ge=0, le=100, examples=[10])] = 0
    """The part of the budget that no work is started on, in percent."""
    node_selector: Annotated[
        dict[str, _LabelValue] | None,
        Field(
            max_length=16,
            examples=[{"datahall.dev/rack": "a1"}],
            json_schema_extra={"x-kubernetes-map-type": "atomic"},
        ),
    ] = None
    """The nodes that it feeds: those that have all these labels. Of several PowerDomains that select a node the lowest
    one feeds it; where neither is above the other, nothing new starts on that node. Absent: it feeds nodes only through
    other PowerDomains."""

    rules = (
        Rule(
            "!has(self.nodeSelector) || size(self.nodeSelector) > 0",
            "nodeSelector must have a label: leave it out for a PowerDomain that feeds nodes only through others",
            lambda self: self.node_selector is None or len(self.node_selector) > 0,
            field=".nodeSelector",
        ),
    )

    def selects(self, node_labels: dict[str, str]) -> bool:
        """Whether it selects a node with these labels."""
        return self.node_selector is not None and self.node_selector.items() <= node_labels.items()


class PowerDomainStatus(StatusModel):
    """What the operator sees."""

    # Without defaults of 0, which would never be written: a status is written where it differs from what is read.
    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this status speaks of."""
    state: Annotated[str | None, Field(max_length=63, examples=["Ready"])] = None
    """One word for where it stands: Ready; Overcommitted (more is reserved than the budget now allows); Stalled (only a
    person can help: the condition of that name says how)."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), Unique("type")] = ()
    """Ready and Stalled."""
    reserved_watts: Annotated[int | None, Field(ge=0, examples=[28000])] = None
    """Watts reserved now by jobs and services below it, at the power caps of their GPUs."""
    available_watts: Annotated[int | None, Field(ge=0, examples=[8000])] = None
    """Watts that a job could reserve below it now, by this budget and those above."""
    nodes: Annotated[int | None, Field(ge=0, examples=[8])] = None
    """Nodes below it, those of the PowerDomains below it included."""


class PowerDomain(Model):
    """A node of the power tree: a site, a row, a rack, and the watts that the GPUs below it may draw."""

    api_version: Literal["datahall.dev/v1alpha1"] = API_VERSION
    kind: Literal["PowerDomain"] = "PowerDomain"
    metadata: ObjectMeta
    spec: PowerDomainSpec
    """What a feed can give, and what it feeds."""
    status: PowerDomainStatus = PowerDomainStatus()
    """What the operator sees; only the operator writes it."""

    rules = tree_rules("PowerDomain", "spec.parent of others names it")

    @classmethod
    def from_json(cls, body: object) -> Self:
        """The object as the API server sends it.

        Raises:
            pydantic.ValidationError: it is not a valid PowerDomain.
        """
        return cls.model_validate(body)
