"""Who leads: a `coordination.k8s.io` Lease, held by one process at a time.

The rules are client-go's. Time is only ever compared on one clock: a standby counts from the moment *it* saw the
lease change, so clocks of two machines need not agree. The leader stops writing a margin before others may take over
(`held`), which is what makes a paused process harmless: it wakes, finds its time gone, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from typing import Any

import structlog

from datahall.kube import ConflictError, KubeClient, KubeError, NotFoundError
from datahall.kube.resources import LEASES

log = structlog.get_logger(__name__)

LEASE_NAME = "datahall-operator"


class LeaseLostError(Exception):
    """This process led and may not any more; it must end, because its caches and plans are a leader's."""


class Lease:
    """Campaign for the lease, keep it, and tell whether it is held."""

    def __init__(self, client: KubeClient, *, namespace: str, identity: str, duration_seconds: float) -> None:
        self._client = client
        self._namespace = namespace
        self._identity = identity
        self._duration = duration_seconds
        self._retry_seconds = duration_seconds / 10
        self._renew_within = duration_seconds * 2 / 3
        self._own: dict[str, Any] | None = None
        """The lease as this process last wrote it."""
        self._renewed_at = float("-inf")
        self._observed: Any = None
        self._observed_at = float("-inf")
        self._due_at = float("inf")
        self._asked_at: float | None = None
        self.holder = ""

    def held(self) -> bool:
        """Whether this process may write now."""
        return asyncio.get_running_loop().time() < self._renewed_at + self._renew_within

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._attempt():  # noqa: ASYNC110 - the waiting is the polling of a remote object
            await asyncio.sleep(self._retry_seconds)
        log.info("leading", identity=self._identity)

    async def keep(self) -> None:
        """Renew for ever.

        Raises:
            LeaseLostError: another process leads, or renewing failed for too long.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._due_at = loop.time() + self._retry_seconds
            await asyncio.sleep(self._retry_seconds)
            remaining = self._renewed_at + self._renew_within - loop.time()
            try:
                async with asyncio.timeout(max(remaining, 0.1)):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if not renewed and (self.holder != self._identity or not self.held()):
                raise LeaseLostError(self.loss())

    def loss(self) -> str:
        """Why the lease is not held, for people: whose it is, or what kept this process from renewing it."""
        if self.holder not in ("", self._identity):
            return f"the lease {LEASE_NAME} is held by {self.holder}"
        now, asked_at = asyncio.get_running_loop().time(), self._asked_at
        text = (
            f"the lease {LEASE_NAME} was not renewed for {now - self._renewed_at:.1f} s: when it was due, this process"
            f" was busy with other work for {max(0.0, (asked_at or now) - self._due_at):.1f} s"
        )
        return (
            text
            if asked_at is None
            else f"{text}, and the API server has not answered for {now - asked_at:.1f} s"
        )

    async def release(self) -> None:
        """Give the lease up at once, so that a standby need not wait for it to run out."""
        if not self.held():
            return
        self._renewed_at = float("-inf")
        with contextlib.suppress(KubeError):
            lease = await self._client.get(LEASES, LEASE_NAME, namespace=self._namespace)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "renewTime": _now(), "leaseDurationSeconds": 1}
                await self._client.replace(LEASES, lease, name=LEASE_NAME, namespace=self._namespace)
                log.info("lease released")

    async def _attempt(self) -> bool:
        """Take or renew the lease if that is allowed. True if held afterwards; never raises for a failed call."""
        loop = asyncio.get_running_loop()
        self._asked_at = asked_at = loop.time()
        try:
            if self._own is not None and await self._renew(self._own, asked_at):
                return True
            try:
                lease = await self._client.get(LEASES, LEASE_NAME, namespace=self._namespace)
            except NotFoundError:
                self._won(
                    await self._client.create(LEASES, self._fresh(), namespace=self._namespace), asked_at
                )
                return True
            spec = lease.setdefault("spec", {})  # every field of a Lease is optional
            self.holder = spec.get("holderIdentity") or ""
            if (version := lease["metadata"]["resourceVersion"]) != self._observed:
                self._observed, self._observed_at = version, loop.time()
            expired = loop.time() >= self._observed_at + float(
                spec.get("leaseDurationSeconds") or self._duration
            )
            if self.holder not in ("", self._identity) and not expired:
                return False
            if self.holder != self._identity:
                spec |= {
                    "acquireTime": _now(),
                    "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
                }
            return await self._renew(lease, asked_at)
        except KubeError as error:
            log.warning("lease not renewed", error=str(error))
            return False

    async def _renew(self, lease: dict[str, Any], asked_at: float) -> bool:
        """Write it as ours; False if somebody has written it since it was read.

        The holder begins with this, and needs no look first: half the requests, when each of them may take seconds.
        """
        lease["spec"] |= {
            "holderIdentity": self._identity,
            "renewTime": _now(),
            "leaseDurationSeconds": max(1, int(self._duration)),
        }
        try:
            # The resourceVersion that was read makes this a compare-and-swap.
            written = await self._client.replace(LEASES, lease, name=LEASE_NAME, namespace=self._namespace)
        except ConflictError:
            self._own = None
            return False
        self._won(written, asked_at)
        return True

    def _won(self, lease: dict[str, Any], asked_at: float) -> None:
        self._own = lease
        self.holder, self._renewed_at, self._asked_at = self._identity, asked_at, None

    def _fresh(self) -> dict[str, Any]:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseDurationSeconds": max(1, int(self._duration)),
                "leaseTransitions": 0,
            },
        }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
