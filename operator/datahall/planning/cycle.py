"""One pass over the waiting line: who starts, who waits and why.

The rules, each in one sentence:

* Order: gangs are examined by priority, then age, and one that fits whole within quota and hall starts.
* Quota: a waiting gang keeps the quota it needs, and those behind it in its queue may use only what it leaves.
* Hall: for the first gang that waits for room in the hall, the nodes nearest to holding it are kept free, and those
  behind it (of any queue) may start only elsewhere.
* A gang that could not start even if every held gang ended (it waits for something outside the plan, such as a
  foreign pod, a cordoned node or an inference replica) keeps nothing.

Within a cycle room only shrinks, so a shape that failed once in a queue fails again: the verdict is remembered, and
thousands of like jobs cost one examination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datahall.planning import messages
from datahall.planning.packing.best_fit import (
    Fit,
    best_fit,
    fits_when_empty,
    fits_when_gangs_end,
    nodes_to_set_aside,
)
from datahall.planning.quota import QuotaBook
from datahall.planning.shape import Shape
from datahall.planning.state import BoolArray, Holder, NodeArrays
from datahall.planning.types import GangRequest, WaitReason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a gang does not start in this cycle.

    Attributes:
        reason: For a program.
        message: For a person.
        keeps: Quota entries of its queue that it keeps from those behind it.
    """

    reason: WaitReason
    message: str
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Option:
    """A GPU model that a gang may use, and the quota entry it would be charged to ("" without GPUs)."""

    model: str
    entry: str


class Cycle:
    """What one pass knows: the state, what is kept for whom, and what has failed already."""

    def __init__(self, nodes: NodeArrays, quota: QuotaBook) -> None:
        self._nodes = nodes
        self._quota = quota
        self._models = nodes.models()
        self._kept: dict[tuple[str, str], int] = {}
        self._first_keeper: dict[tuple[str, str], str] = {}
        self._set_aside: BoolArray | None = None
        self._set_aside_for = ""
        self._refused: dict[tuple[str, Shape], Refusal] = {}
        self._failed: set[tuple[Shape, str]] = set()
        self._fits_empty: dict[tuple[Shape, str], bool] = {}
        self._fits_lasting: dict[tuple[Shape, str], bool] = {}

    def examine(self, gang: GangRequest, shape: Shape) -> Fit | Refusal:
        """Say where a gang would start now, or why it does not. The caller applies a fit before the next call."""
        queue = self._quota.queue(gang.queue)
        if queue is None:
            text = messages.queue_not_found(gang.queue, self._quota.names())
            return Refusal(WaitReason.QUEUE_NOT_FOUND, text)
        if queue.namespaces and gang.namespace not in queue.namespaces:
            text = messages.namespace_not_allowed(gang.queue, gang.namespace, queue.namespaces)
            return Refusal(WaitReason.NAMESPACE_NOT_ALLOWED, text)
        known = (gang.queue, shape)
        refusal = self._refused.get(known)
        if refusal is None:
            verdict = self._judge(gang, shape)
            if isinstance(verdict, Fit):
                return verdict
            refusal = self._refused[known] = verdict
        for entry in refusal.keeps:
            place = (gang.queue, entry)
            self._kept[place] = self._kept.get(place, 0) + shape.all_gpus
            self._first_keeper.setdefault(place, f"{gang.name} (needs {messages.demand(shape)})")
        return refusal

    # ---- the judgement of one shape in one queue

    def _judge(self, gang: GangRequest, shape: Shape) -> Fit | Refusal:
        models = self._allowed_models(shape)
        if not any(self._fits_when_empty(shape, model) for model in models):
            return Refusal(WaitReason.NEVER_FITS, messages.never_in_hall(self._nodes, shape))
        options = self._options(gang.queue, shape, models)
        if isinstance(options, Refusal):
            return options
        open_now = [o for o in options if self._left(gang.queue, o) >= shape.all_gpus]
        if not open_now:
            return self._wait_for_quota(gang, shape, options)
        fit = self._choose(shape, open_now, self._set_aside)
        return fit if fit is not None else self._wait_for_hall(gang, shape, options, open_now)

    def _allowed_models(self, shape: Shape) -> list[str]:
        if shape.gpus == 0:
            return [""]
        if shape.models:
            return [model for model in dict.fromkeys(shape.models) if model in self._models]
        return self._models

    def _fits_when_empty(self, shape: Shape, model: str) -> bool:
        key = (shape, model)
        if key not in self._fits_empty:
            self._fits_empty[key] = fits_when_empty(self._nodes, shape, model)
        return self._fits_empty[key]

    def _fits_when_gangs_end(self, shape: Shape, model: str) -> bool:
        key = (shape, model)
        if key not in self._fits_lasting:
            self._fits_lasting[key] = fits_when_gangs_end(self._nodes, shape, model)
        return self._fits_lasting[key]

    def _options(self, queue: str, shape: Shape, models: Sequence[str]) -> list[_Option] | Refusal:
        """The models that could ever hold the gang, by hall and by quota."""
        if shape.gpus == 0:
            return [_Option("", "")]
        fitting = [model for model in models if self._fits_when_empty(shape, model)]
        entries = [(model, self._quota.entry(queue, model)) for model in fitting]
        granted = [_Option(model, entry) for model, entry in entries if entry is not None]
        options = [o for o in granted if self._quota.nominal(queue, o.entry) >= shape.all_gpus]
        if options:
            return options
        text = messages.never_within_quota(shape, self._quota, queue, _entries(granted))
        return Refusal(WaitReason.QUOTA_TOO_SMALL, text)

    def _left(self, queue: str, option: _Option) -> int:
        """GPUs of quota that are neither held nor kept."""
        if not option.entry:
            return 0
        return self._quota.room(queue, option.entry) - self._kept.get((queue, option.entry), 0)

    def _choose(
        self, shape: Shape, options: Sequence[_Option], set_aside: BoolArray | None = None
    ) -> Fit | None:
        """The first listed model that holds the gang; without a list, the model where it fits best."""
        best: Fit | None = None
        for option in options:
            key = (shape, option.model)
            if key in self._failed:
                continue
            fit = best_fit(self._nodes, shape, option.model, set_aside)
            if fit is None:
                if set_aside is None:
                    self._failed.add(key)
                continue
            if shape.models or shape.gpus == 0:
                return fit
            if best is None or (fit.leftover_gpus, len(fit.nodes)) < (best.leftover_gpus, len(best.nodes)):
                best = fit
        return best

    def _wait_for_quota(self, gang: GangRequest, shape: Shape, options: Sequence[_Option]) -> Refusal:
        entries = _entries(options)
        keeps = self._worth_keeping(gang.queue, shape, options)
        kept_from = [e for e in entries if self._quota.room(gang.queue, e) >= shape.all_gpus]
        if not kept_from:
            text = messages.quota_exceeded(shape, self._quota, gang.queue, entries)
            return Refusal(WaitReason.QUOTA_EXCEEDED, text, keeps)
        keeper = self._first_keeper[gang.queue, kept_from[0]]
        text = messages.behind_quota(shape, self._quota, gang.queue, kept_from, keeper)
        return Refusal(WaitReason.BEHIND_OTHERS, text, keeps)

    def _wait_for_hall(
        self, gang: GangRequest, shape: Shape, options: Sequence[_Option], open_now: Sequence[_Option]
    ) -> Refusal:
        keeps = self._worth_keeping(gang.queue, shape, options)
        if self._set_aside is not None and self._choose(shape, open_now) is not None:
            text = messages.behind_nodes(shape, self._set_aside_for, int(self._set_aside.sum()))
            return Refusal(WaitReason.BEHIND_OTHERS, text, keeps)
        models = [option.model for option in open_now]
        attainable = [model for model in models if self._fits_when_gangs_end(shape, model)]
        gpus_missing, text = messages.insufficient(self._nodes, shape, models, attainable=bool(attainable))
        if attainable and self._set_aside is None:
            self._set_aside = nodes_to_set_aside(self._nodes, shape, attainable[0])
            self._set_aside_for = f"{gang.name} (needs {messages.demand(shape)})"
        reason = WaitReason.INSUFFICIENT_GPUS if gpus_missing else WaitReason.INSUFFICIENT_RESOURCES
        return Refusal(reason, text, keeps)

    def _worth_keeping(self, queue: str, shape: Shape, options: Sequence[_Option]) -> tuple[str, ...]:
        """Entries under which the gang would start once all held gangs have ended."""
        if shape.gpus == 0:
            return ()
        attainable = []
        for option in options:
            lasting = self._quota.nominal(queue, option.entry) - self._quota.used(
                queue, option.entry, Holder.PODS
            )
            if lasting >= shape.all_gpus and self._fits_when_gangs_end(shape, option.model):
                attainable.append(option)
        return tuple(_entries(attainable))


def _entries(options: Sequence[_Option]) -> list[str]:
    """The entries of some options, each once."""
    return list(dict.fromkeys(option.entry for option in options))
