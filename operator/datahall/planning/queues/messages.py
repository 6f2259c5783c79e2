"""Sentences for people about quota: why it refuses, what would help, what is wrong with a tree. Nothing is decided."""

from __future__ import annotations

from collections.abc import Sequence

from datahall.planning.queues.spec import JOULES_PER_DAY, WATTS, QueueSpec, family, gpus
from datahall.planning.queues.verdicts import MissingParent, RefusalReason, Refused, Trouble
from datahall.planning.types import ANY_MODEL

_SHOWN = 5


def quantity(resource: str, amount: int) -> str:
    """An amount with its unit, such as "8 H100 GPUs", "12.5 kW" or "3.6 GJ"; never less than 0."""
    amount = max(amount, 0)
    if resource == WATTS:
        return _scaled(amount, "W")
    if resource == JOULES_PER_DAY:
        return _scaled(amount, "J")
    if _is_gpus(resource):
        number = gpus(resource, amount)
        return f"{number:g} {_noun(resource)}{'' if number == 1 else 's'}"
    return f"{amount} {resource}"


def refused(
    refusal: Refused, *, spec: QueueSpec | None = None, gives_back: Sequence[str] = (), need: str = ""
) -> str:
    """Why quota refuses, with numbers.

    Args:
        refusal: The refusal.
        spec: The queue that was asked, for the entries that it has.
        gives_back: Queues that hold what is missing, and give it back.
        need: What is asked for, such as "2 x 8 GPUs"; the amount of a refused budget follows it, and that of GPUs does
            not: it says as much.
    """
    queue, resource = refusal.queue, refusal.resource
    asked = [need] if need else []
    if not (need and _is_gpus(resource)):
        asked.append(_needed(resource, refusal.asked))
    need = f"needs {', '.join(asked)}"
    if refusal.reason == RefusalReason.QUEUE_NOT_FOUND:
        return f'{need}; there is no queue "{queue}"'
    if refusal.reason == RefusalReason.NOT_GRANTED:
        of = family(resource)
        named = sorted(entry for entry in (spec.limits if spec is not None else {}) if family(entry) == of)
        has = ", ".join(entry.partition(":")[2] or entry for entry in named) or "none"
        return f"can never fit: {need}; queue {queue} has no quota for {_nouns(resource)} (it has: {has})"
    if not refusal.ever:
        own, most = (quantity(refusal.entry, n) for n in (refusal.nominal, refusal.most))
        whole = f"the whole quota of queue {queue} is {own}"
        if refusal.most != refusal.nominal:
            whole = f"queue {queue} can have {most} at most, {own} of its own and the rest borrowed"
        return f"can never fit: {need}; {whole}: lower what is asked for or raise the quota"
    left, held = quantity(refusal.entry, refusal.room), _bare(refusal.entry, refusal.own)
    if refusal.reason == RefusalReason.LENT_AWAY:
        who = _listed(gives_back) or "other queues"
        return (
            f"{need}; that is within the {quantity(refusal.entry, refusal.nominal)} of queue {queue} "
            f"({held} in use), and {left} of it {_are(left)} there now: the rest is borrowed by {who}"
        )
    used, quota = (_bare(refusal.entry, n) for n in (refusal.used_there, refusal.quota_there))
    if refusal.reason == RefusalReason.BORROWING_LIMIT:
        assert refusal.borrowing_limit_there is not None, "that limit refused"
        limit = _bare(refusal.entry, refusal.borrowing_limit_there)
        return (
            f"{need}; {_which(refusal)} uses {used}, may borrow {limit} beyond its {quota}, "
            f"and has {left} left{_window(resource)}"
        )
    if refusal.reason == RefusalReason.NOTHING_TO_BORROW:
        return (
            f"{need}; queue {queue} holds {held} (nominal {_bare(refusal.entry, refusal.nominal)}), "
            f"and {_which(refusal)} has {left} left to lend: {used} of {quota} in use{_window(resource)}"
        )
    return f"{need}; queue {queue} has {left} of quota left: {used} of {quota} in use{_window(resource)}"


def trouble(found: Trouble) -> str:
    """What is wrong with a queue's place in the tree, what that means, and what mends it."""
    alone = "with its own quota and nothing to borrow or lend"
    if isinstance(found, MissingParent):
        return (
            f'parent: there is no queue "{found.parent}"; until it is created or another is named, '
            f"queue {found.queue} stands alone, {alone}"
        )
    circle = " -> ".join((*found.queues, found.queues[0]))
    return (
        f"parent: the parents go in a circle ({circle}); until one of them names another, "
        f"each of these queues stands alone, {alone}"
    )


def _is_gpus(resource: str) -> bool:
    return family(resource) in ("gpu", "gpu_milli")


def _which(refusal: Refused) -> str:
    return f"queue {refusal.where}" + ("" if refusal.where == refusal.queue else ", above it,")


def _needed(resource: str, amount: int) -> str:
    return quantity(resource, amount) + _window(resource)


def _window(resource: str) -> str:
    return " within 24 h" if resource == JOULES_PER_DAY else ""


def _noun(resource: str) -> str:
    model = resource.partition(":")[2]
    return "GPU" if model in ("", ANY_MODEL) else f"{model} GPU"


def _nouns(resource: str) -> str:
    return f"{_noun(resource)}s" if _is_gpus(resource) else resource


def _bare(resource: str, amount: int) -> str:
    """An amount with its unit, where the unit is not plain from the sentence."""
    if _is_gpus(resource):
        return f"{gpus(resource, max(amount, 0)):g}"
    return quantity(resource, amount)


def _are(text: str) -> str:
    return "is" if text.startswith("1 ") else "are"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _scaled(amount: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if amount < 10_000 or prefix == "T":
            break
        amount /= 1000
    return f"{amount:.6g} {prefix}{unit}"
