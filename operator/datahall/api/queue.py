"""Queue: how many GPUs a team may use, and who may ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field

from . import API_VERSION
from .common import Condition, GPUModel, Int, Model, Name, ObjectMeta, Rule, SpecModel, Unique

ANY_MODEL = "Any"
"""The entry of a quota that covers every GPU model without an entry of its own."""


class GPUQuota(SpecModel):
    """How many GPUs of one model."""

    model: Annotated[GPUModel, Field(examples=["H100"])]
    """GPU model, as the nodes' GPU model label names it; Any covers every model without an entry of its own."""
    nominal: Annotated[Int, Field(ge=0, le=1_000_000, examples=[16])]
    """GPUs that the queue's jobs and services may hold at once."""


class QueueSpec(SpecModel):
    """What the platform team grants."""

    gpus: Annotated[
        tuple[GPUQuota, ...],
        Field(max_length=64, examples=[[{"model": "Any", "nominal": 8}]]),
        Unique("model"),
    ] = ()
    """Quota per GPU model. A model without an entry (nor Any) has none. Work without GPUs needs no quota."""
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
    used: Annotated[int, Field(ge=0, examples=[12])]
    """GPUs held now."""


class QueueStatus(Model):
    """What the operator sees."""

    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), Unique("type")] = ()
    """Ready: whether the operator admits work against this quota."""
    used: Annotated[
        tuple[GPUUse, ...], Field(max_length=64, examples=[[{"model": "Any", "used": 6}]]), Unique("model")
    ] = ()
    """GPUs held now, per entry of the quota."""
    summary: Annotated[str | None, Field(max_length=8192, examples=["H100 12/16, Any 0/8"])] = None
    """GPUs held and granted, per entry of the quota, for tables; programs read used."""
    admitted: Annotated[int, Field(ge=0, examples=[3])] = 0
    """TrainingJobs that hold their place."""
    waiting: Annotated[int, Field(ge=0, examples=[5])] = 0
    """TrainingJobs that wait for one."""


class Queue(Model):
    """A quota: how many GPUs of which model its jobs and services may hold, and which namespaces may use it."""

    api_version: Literal["datahall.dev/v1alpha1"] = API_VERSION
    kind: Literal["Queue"] = "Queue"
    metadata: ObjectMeta
    spec: QueueSpec
    """What the platform team grants."""
    status: QueueStatus = QueueStatus()
    """What the operator sees; only the operator writes it."""

    rules = (
        Rule(
            "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
            "metadata.name of a Queue must be at most 63 lower-case letters, digits and '-': it is used as a label",
            lambda self: (
                0 < len(self.metadata.name) <= 63
                and self.metadata.name.strip("-") == self.metadata.name
                and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789-" for letter in self.metadata.name)
            ),
        ),
    )

    @classmethod
    def from_json(cls, body: object) -> Self:
        """The object as the API server sends it.

        Raises:
            pydantic.ValidationError: it is not a valid Queue.
        """
        return cls.model_validate(body)
