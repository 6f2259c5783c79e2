"""Queue: what a team is granted, what it may borrow from its neighbours and lend them, and who may ask.

Queues form a tree by `spec.parent`. How lending and borrowing add up is in `planning.queues`; here is what people write
and what they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field

from . import API_VERSION
from .common import (
    Condition,
    Decimal,
    GPUModel,
    Int,
    Model,
    Name,
    ObjectMeta,
    SpecModel,
    StatusModel,
    Time,
    Unique,
    tree_rules,
)

ANY_MODEL = "Any"
"""The entry of a quota that covers every GPU model without an entry of its own."""


_MOST_GPUS = 1_000_000
_MOST_WATTS = 10_000_000_000
_MOST_JOULES = 1_000_000_000_000_000
"""A little more than what 10 GW draw in a day, and exact in every JSON reader."""

_GPUs = Annotated[Int, Field(ge=0, le=_MOST_GPUS)]
_Watts = Annotated[Int, Field(ge=0, le=_MOST_WATTS)]
_Joules = Annotated[Int, Field(ge=0, le=_MOST_JOULES)]


class GPUQuota(SpecModel):
    """How many GPUs of one model."""

    model: Annotated[GPUModel, Field(examples=["H100"])]
    """GPU model, as the nodes' GPU model label names it; Any covers every model without an entry of its own."""
    nominal: Annotated[_GPUs, Field(examples=[16])]
    """GPUs of its own, to hold at once. Never lent for good: whoever borrowed some gives them back when this queue
    needs them."""
    borrowing_limit: Annotated[_GPUs | None, Field(examples=[8])] = None
    """GPUs that the queue and those beneath it may hold beyond its quota, while neighbours leave theirs idle; 0 for
    none. Absent: as many as there are."""
    lending_limit: Annotated[_GPUs | None, Field(examples=[12])] = None
    """GPUs of its quota that others may borrow while they are idle; the rest is kept free for this queue and those
    beneath it. 0 for none. Absent: all of them."""


class PowerQuota(SpecModel):
    """How many watts may be reserved, counted at the power caps of the GPUs."""

    nominal: Annotated[_Watts, Field(examples=[11200])]
    """Watts of its own, to be reserved at once. Never lent for good: whoever borrowed some gives them back when this
    queue needs them."""
    borrowing_limit: Annotated[_Watts | None, Field(examples=[5600])] = None
    """Watts that the queue and those beneath it may reserve beyond its quota, while neighbours leave theirs idle; 0 for
    none. Absent: as many as there are."""
    lending_limit: Annotated[_Watts | None, Field(examples=[5600])] = None
    """Watts of its quota that others may borrow while they are idle; 0 for none. Absent: all of them."""


class EnergyQuota(SpecModel):
    """How many joules may be drawn within 24 hours. What is spent comes back with time alone."""

    nominal: Annotated[_Joules, Field(examples=[500_000_000])]
    """Joules of its own within any 24 hours (3.6 MJ are one kWh). Never lent for good: what others have spent of it is
    there again a day later."""
    borrowing_limit: Annotated[_Joules | None, Field(examples=[100_000_000])] = None
    """Joules within 24 hours that the queue and those beneath it may spend beyond its quota, of what neighbours leave;
    0 for none. Absent: as many as there are."""
    lending_limit: Annotated[_Joules | None, Field(examples=[100_000_000])] = None
    """Joules of its quota within 24 hours that others may spend; 0 for none. Absent: all of them."""


class QueueSpec(SpecModel):
    """What the platform team grants."""

    parent: Annotated[Name | None, Field(examples=["research"])] = None
    """The Queue above this one, such as the department of a team. Queues with one parent lend each other what is idle,
    and together draw on the parent's own quota. Absent: it stands at the top, and borrows nothing."""
    weight: Annotated[Int, Field(ge=1, le=1000, examples=[2])] = 1
    """Its part of what is contended beyond nominal, relative to the queues with the same parent: 2 gets twice as much
    as 1."""
    gpus: Annotated[
        tuple[GPUQuota, ...],
        Field(max_length=64, examples=[[{"model": "Any", "nominal": 8}]]),
        Unique("model"),
    ] = ()
    """Quota per GPU model. A queue with entries uses these models alone (Any: all of them), its own and what it may
    borrow; one without entries uses what the queues above it have. Work without GPUs needs no quota."""
    watts: PowerQuota | None = None
    """Power that its jobs and services may reserve, in watts, counted at the power caps of their GPUs. Queues lend each
    other watts where the queue above them has an entry, too, if only of 0. Absent: no limit of its own; those above it
    hold."""
    joules_per_day: EnergyQuota | None = None
    """Energy that its jobs and services may draw within any 24 hours, in joules. Once it is spent, nothing new starts.
    Queues lend each other joules where the queue above them has an entry, too, if only of 0. Absent: no limit of its
    own; those above it hold."""
    minimum_run_seconds: Annotated[Int, Field(ge=0, le=604_800, examples=[600])] = 60
    """Seconds that a job of this queue runs after each start before the planner may end it to make room for another."""
    namespaces: Annotated[
        tuple[Name, ...], Field(max_length=1024, examples=[["team-a", "team-a-dev"]]), Unique()
    ] = ()
    """Namespaces that may use the queue. Empty: every namespace."""

    def nominal(self, model: str) -> int:
        """The quota that covers `model`, in GPUs."""
        quotas = {quota.model: quota.nominal for quota in self.gpus}
        return quotas.get(model, quotas.get(ANY_MODEL, 0))

    def summary(self, used: Mapping[str, int]) -> str:
        """`status.summary`: what is held, by entry of the quota, out of what is granted."""
        return ", ".join(f"{quota.model} {used.get(quota.model, 0)}/{quota.nominal}" for quota in self.gpus)

    def allows(self, namespace: str) -> bool:
        """Whether objects of `namespace` may use the queue."""
        return not self.namespaces or namespace in self.namespaces


class GPUUse(Model):
    """How many GPUs of one entry of the quota are held."""

    model: Annotated[str, Field(max_length=63, examples=["H100"])]
    """The entry of spec.gpus."""
    used: Annotated[int, Field(ge=0, examples=[20])]
    """GPUs that its own jobs and services hold now, borrowed ones included; queues beneath it have figures of their
    own."""
    nominal: Annotated[int | None, Field(ge=0, examples=[16])] = None
    """GPUs of its own, as spec.gpus says."""
    borrowed: Annotated[int | None, Field(ge=0, examples=[4])] = None
    """GPUs held beyond nominal: whoever lent them may take them back."""
    available: Annotated[int | None, Field(ge=0, examples=[8])] = None
    """GPUs of quota that a job could take now, what it could borrow included. Nodes must have room besides."""


class PowerUse(Model):
    """How much power is reserved."""

    reserved: Annotated[int, Field(ge=0, examples=[8400])]
    """Watts reserved now for its own jobs and services, at the power caps of the GPUs that they hold."""
    available: Annotated[int | None, Field(ge=0, examples=[2800])] = None
    """Watts that a job could reserve now, what it could borrow included. Absent: no queue on the way up has a limit."""


class EnergyUse(Model):
    """How much energy was drawn."""

    last_day: Annotated[int, Field(ge=0, examples=[312_000_000])]
    """Joules that its own jobs and services drew in the last 24 hours."""
    available: Annotated[int | None, Field(ge=0, examples=[188_000_000])] = None
    """Joules left now, what it could borrow included. Absent: no queue on the way up has a limit."""


class UseOverTime(Model):
    """What it has used over time, put down so that a new leader of the operators goes on from there."""

    as_of: Annotated[Time, Field(examples=["2026-11-22T15:00:00Z"])]
    """Until when it is counted. What its jobs and services hold meanwhile is added by whoever reads it."""
    decayed_gpu_seconds: Annotated[int, Field(ge=0, examples=[1_209_600])]
    """GPU-seconds that its own jobs and services used, as they count in whose turn it is: what was used 7 days before
    asOf counts half."""
    decayed_joules: Annotated[int, Field(ge=0, examples=[846_720_000])]
    """Joules that they drew, likewise."""
    joules_by_hour: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(max_length=32, examples=[[1_260_000, 2_520_000]]),
    ] = ()
    """Joules that they drew within each hour (UTC), not decayed: first the hour of asOf, then those before it."""


class QueueStatus(StatusModel):
    """What the operator sees."""

    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), Unique("type")] = ()
    """Ready: whether the operator admits work against this quota."""
    used: Annotated[
        tuple[GPUUse, ...],
        Field(
            max_length=64,
            examples=[[{"model": "Any", "used": 6, "nominal": 8, "borrowed": 0, "available": 2}]],
        ),
        Unique("model"),
    ] = ()
    """GPUs held now, per entry of the quota."""
    watts: PowerUse | None = None
    """Power reserved now. Absent: it is not counted."""
    joules: EnergyUse | None = None
    """Energy of the last 24 hours. Absent: it is not counted."""
    share: Annotated[Decimal | None, Field(examples=["0.125"])] = None
    """Its dominant share of the hall (GPUs or watts, over time) beyond nominal, with those beneath it, divided by its
    weight, as a decimal: of queues with the same parent, the one with the smallest goes first. 0 is within nominal."""
    summary: Annotated[str | None, Field(max_length=8192, examples=["H100 20/16, Any 0/8"])] = None
    """GPUs held and of its own, per entry of the quota, for tables: more than its own are borrowed. Programs read
    used."""
    history: UseOverTime | None = None
    """What it has used over time. Written with each change of the rest, and every few minutes while something is held.
    Absent: nothing was used yet."""
    admitted: Annotated[int, Field(ge=0, examples=[3])] = 0
    """TrainingJobs, and replicas of InferenceServices, that hold their place; those that are ending still do. What
    queues beneath it admit is counted there."""
    waiting: Annotated[int, Field(ge=0, examples=[5])] = 0
    """TrainingJobs, and replicas of InferenceServices, that are in its line for a place. Those that something else
    keeps from starting, such as a missing claim, are in no line."""


class Queue(Model):
    """A node of the quota tree: what its jobs and services may hold, borrow and lend, and who may use it."""

    api_version: Literal["datahall.dev/v1alpha1"] = API_VERSION
    kind: Literal["Queue"] = "Queue"
    metadata: ObjectMeta
    spec: QueueSpec
    """What the platform team grants."""
    status: QueueStatus = QueueStatus()
    """What the operator sees; only the operator writes it."""

    rules = tree_rules("Queue", "it is used as a label")

    @classmethod
    def from_json(cls, body: object) -> Self:
        """The object as the API server sends it.

        Raises:
            pydantic.ValidationError: it is not a valid Queue.
        """
        return cls.model_validate(body)
