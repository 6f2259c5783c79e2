"""The gang: how the ranks find one another, and what they say to each other.

A collective that fails means that a peer went away, whatever the library calls it: it becomes `PeerLost`.
Everything that only coordinates goes over gloo on the CPU, also where gradients go over NCCL, so that a rank
learns of a dead peer without waiting for a kernel that never ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from datahall_trainer.errors import PeerLost, TrainerError, one_line
from datahall_trainer.place import Place

T = TypeVar("T")
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


def choose_device(place: Place, environment: Mapping[str, str]) -> torch.device:
    """This rank's GPU if there is one, else the CPU; says plainly which and why."""
    if environment.get("DATAHALL_SIMULATED_GPU", "") not in {"", "0", "false"}:
        _log.info("device: cpu (the GPUs of this container are simulated, so it computes on the CPU)")
        return torch.device("cpu")
    if torch.cuda.is_available() and torch.cuda.device_count() > place.local_rank:
        device = torch.device("cuda", place.local_rank)
        _log.info("device: %s (%s)", device, torch.cuda.get_device_name(device))
        return device
    _log.info("device: cpu (no CUDA device in this container, so it computes on the CPU)")
    return torch.device("cpu")


class Group:
    """The ranks that train together; with one rank every method is a no-op on the rank's own value."""

    def __init__(self, place: Place, device: torch.device, gradients: dist.ProcessGroup | None) -> None:
        """Wraps groups that `join` has made."""
        self.rank = place.rank
        self.world_size = place.world_size
        self.device = device
        self._gradients = gradients

    def sum_async(self, tensor: Tensor) -> Callable[[], None]:
        """Begins to add up a tensor over all ranks, in place; call what it returns before reading it."""
        if self.world_size == 1:
            return lambda: None
        with _peer_lost("all-reduce"):
            work = dist.all_reduce(tensor, dist.ReduceOp.SUM, group=self._gradients, async_op=True)

        def wait() -> None:
            with _peer_lost("all-reduce"):
                assert work is not None
                work.wait()

        return wait

    def exchange(self, values: list[float]) -> Tensor:
        """Everybody's values: float64 [world_size, len(values)] by rank. Every rank must call it alike."""
        own = torch.tensor(values, dtype=torch.float64)
        return torch.stack(self.gather(own))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Everybody's CPU tensor, by rank; shapes and types must be alike."""
        if self.world_size == 1:
            return [tensor]
        everyone = [torch.empty_like(tensor) for _ in range(self.world_size)]
        with _peer_lost("all-gather"):
            dist.all_gather(everyone, tensor)
        return everyone

    def gather_objects(self, value: Any) -> list[Any]:
        """Everybody's small picklable value, by rank."""
        if self.world_size == 1:
            return [value]
        everyone: list[Any] = [None] * self.world_size
        with _peer_lost("all-gather"):
            dist.all_gather_object(everyone, value)
        return everyone

    def on_first(self, action: Callable[[], T]) -> T:
        """Runs `action` on rank 0 alone; its result, or its `TrainerError`, comes out on every rank.

        So a full disk that only rank 0 meets is one and the same sentence everywhere. An unexpected exception
        stays with rank 0, whose death the others then notice.
        """
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = action()
            except TrainerError as error:
                outcome[1] = error
        if self.world_size > 1:
            with _peer_lost("broadcast"):
                dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def leave(self) -> None:
        """Ends the gang in order; only after every rank is done."""
        if self.world_size > 1:
            with contextlib.suppress(PeerLost):
                self.exchange([1.0])  # rank 0 holds the store, so it must not leave before the others
                dist.destroy_process_group()


def join(place: Place, device: torch.device, *, timeout_seconds: float, check: Callable[[], None]) -> Group:
    """Waits for the whole gang and connects it.

    Args:
        place: who this rank is.
        device: what it computes on; NCCL is used if every rank has a GPU, else all compute on the CPU.
        timeout_seconds: how long to wait for peers, now and in every later collective.
        check: called again and again while waiting, so that a signal can end the wait by raising.

    Raises:
        PeerLost: somebody did not come in time, or went away again.
    """
    if place.world_size == 1:
        return Group(place, device, None)
    deadline = time.monotonic() + timeout_seconds
    timeout = timedelta(seconds=timeout_seconds)
    with _peer_lost("rendezvous"):
        if place.rank != 0:
            _await_master(place, deadline, check)
        store = dist.TCPStore(  # type: ignore[attr-defined] # torch's stubs do not re-export it
            place.master_address,
            place.master_port,
            place.world_size,
            is_master=place.rank == 0,
            timeout=timeout,
            wait_for_workers=False,
        )
        # Pods of another generation that reach this store by a stale name must not be counted.
        prefixed = dist.PrefixStore(  # type: ignore[attr-defined]
            f"generation-{place.generation}", store
        )
        prefixed.add("arrived", 1)
        while (arrived := prefixed.add("arrived", 0)) < place.world_size:
            check()
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"rendezvous: {arrived} of {place.world_size} ranks came within {timeout_seconds:.0f} s"
                )
            time.sleep(_POLL_SECONDS)
        dist.init_process_group(
            "gloo", store=prefixed, rank=place.rank, world_size=place.world_size, timeout=timeout
        )
    group = Group(place, device, None)
    with_gpu = sum(group.gather_objects(device.type == "cuda"))
    if with_gpu < place.world_size:
        if with_gpu:
            _log.warning(
                "only %d of %d ranks have a GPU, so all compute on the CPU", with_gpu, place.world_size
            )
        return Group(place, torch.device("cpu"), None)
    with _peer_lost("rendezvous"):
        torch.cuda.set_device(device)
        gradients = dist.new_group(backend="nccl", timeout=timeout)
    assert isinstance(gradients, dist.ProcessGroup)  # a number only for ranks outside the group
    return Group(place, device, gradients)


def _await_master(place: Place, deadline: float, check: Callable[[], None]) -> None:
    """Waits until rank 0 listens; its DNS name appears only when its pod runs."""
    reason = ""
    while time.monotonic() < deadline:
        check()
        try:
            socket.create_connection((place.master_address, place.master_port), timeout=1).close()
            return
        except OSError as error:
            if reason != str(error):
                reason = str(error)
                _log.info("waiting for rank 0 at %s:%d: %s", place.master_address, place.master_port, error)
        time.sleep(_POLL_SECONDS)
    raise PeerLost(
        f"rendezvous: rank 0 at {place.master_address}:{place.master_port} cannot be reached: {reason}"
    )


@contextlib.contextmanager
def _peer_lost(what: str) -> Iterator[None]:
    try:
        yield
    except TrainerError:
        raise
    # gloo, NCCL and the store raise RuntimeError and its subclasses; there is no finer common type.
    except RuntimeError as error:
        reason = one_line(error).split(". This may indicate")[0][:300]
        raise PeerLost(f"a peer of the gang went away: {what} failed: {reason}") from error


def collective_timeout_seconds() -> float:
    """How long to wait for a peer that is silent but whose connection stands (a dead one is noticed at once)."""
    return float(os.environ.get("DATAHALL_COLLECTIVE_TIMEOUT_SECONDS", "300"))
