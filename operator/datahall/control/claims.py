"""Which of the PersistentVolumeClaims that an object names can be used, and why not.

A claim whose storage class has binding mode WaitForFirstConsumer stays Pending until a pod that uses it is scheduled:
to wait for it before making the pod would be to wait for ever. Every other claim is bound without a pod, and a pod that
came first would find no node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from datahall.control.storage_views import ClaimView, StorageClassView


@dataclass(frozen=True, slots=True)
class Unbound:
    """A claim that exists and has no volume.

    Attributes:
        name: its name.
        waits_for_pod: whether it is bound only once a pod that uses it is scheduled.
        sentence: its phase, and what it waits for.
    """

    name: str
    waits_for_pod: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one object that cannot be used as they are.

    Attributes:
        missing: names of those that do not exist.
        unbound: those without a volume.
    """

    missing: tuple[str, ...] = ()
    unbound: tuple[Unbound, ...] = ()

    @property
    def stuck(self) -> tuple[Unbound, ...]:
        """Those that no pod would get bound."""
        return tuple(claim for claim in self.unbound if not claim.waits_for_pod)

    @property
    def blocking(self) -> bool:
        """Whether it is too early to make a pod."""
        return bool(self.missing or self.stuck)


def look_up(
    names: Iterable[str],
    *,
    claim: Callable[[str], ClaimView | None],
    storage_class: Callable[[str], StorageClassView | None],
) -> Claims:
    """What is wrong with the claims of these names.

    Args:
        names: the claims.
        claim: finds a claim by name.
        storage_class: finds a storage class by name.
    """
    missing, unbound = [], []
    for name in dict.fromkeys(names):
        found = claim(name)
        if found is None:
            missing.append(name)
        elif found.phase != "Bound":
            unbound.append(_unbound(found, storage_class(found.storage_class)))
    return Claims(tuple(missing), tuple(unbound))


def not_found(missing: Iterable[str], namespace: str) -> str:
    """The sentence for claims that do not exist."""
    names = ", ".join(f'"{name}"' for name in missing)
    return f"PersistentVolumeClaim {names} does not exist in namespace {namespace}"


def not_bound(unbound: Iterable[Unbound]) -> str:
    """The sentence for claims without a volume."""
    return "; ".join(claim.sentence for claim in unbound)


def _unbound(claim: ClaimView, storage_class: StorageClassView | None) -> Unbound:
    # A claim that names its volume is bound to that one or none, whatever its class says; so the scheduler reads it.
    waits = storage_class is not None and storage_class.waits_for_pod and not claim.volume
    head = f'PersistentVolumeClaim "{claim.name}" is {claim.phase}'
    if claim.phase == "Lost":
        return Unbound(claim.name, False, f'{head}: its volume "{claim.volume}" is gone')
    if claim.volume:
        why = f'it waits for the volume "{claim.volume}"'
    elif not claim.storage_class:
        why = "it has no storage class, and waits for a volume that fits"
    elif storage_class is None:
        why = f'its storage class "{claim.storage_class}" does not exist, and no volume fits'
    elif waits:
        why = f'its storage class "{claim.storage_class}" binds it when a pod that uses it has a node'
    else:
        why = f'its storage class "{claim.storage_class}" has not made a volume yet'
    return Unbound(claim.name, waits, f"{head}: {why}")
