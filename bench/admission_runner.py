"""The bench as the one who ends jobs, as the runner of Kueue's own measurement does: no pods, no kubelets.

A job that is admitted runs for the time of its class, counted from the moment its status says so, and is then marked as
succeeded in its status; one that is put out meanwhile is not. The operator that is measured so makes no pods
(`operator_without_pods`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.admission_hall import now_text, say
from bench.admission_kubelet import REPORTERS, Witness, changes
from bench.admission_ledger import Key, Ledger
from bench.admission_objects import Json, holds_place, is_true
from datahall.api.conditions import ConditionType, set_condition
from datahall.api.reasons import Reason
from datahall.api.trainingjob_status import TrainingJobStatus
from datahall.kube import KubeClient, UnavailableError
from datahall.kube.resources import TRAINING_JOBS

FIELD_MANAGER = "bench-runner"


class Runner(Witness):
    """Ends admitted jobs and keeps the ledger."""

    def __init__(self, client: KubeClient, ledger: Ledger, *, runtimes: dict[str, float]) -> None:
        """Start with nothing seen.

        Args:
            client: a connection pool of its own.
            ledger: what happens is written there.
            runtimes: seconds that a job of a class runs.
        """
        super().__init__(ledger)
        self._client = client
        self._runtimes = runtimes
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._bodies: dict[Key, Json] = {}
        self._ends: asyncio.Queue[Key] = asyncio.Queue()

    async def run(self) -> None:
        """Watch and end for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            for _ in range(REPORTERS):
                group.create_task(self._report())

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        async for kind, body in changes(self._client, TRAINING_JOBS):
            key = self.job(kind, body, loop.time())
            if key is None:
                continue
            status: dict[str, Any] = body.get("status") or {}
            if is_true(status, "Succeeded"):
                self._bodies.pop(key, None)
            elif holds_place(status):
                self._bodies[key] = body
                if key not in self._timers:
                    entry = self.ledger.entries[key]
                    self.ledger.bind(key, loop.time())
                    self._timers[key] = loop.call_later(
                        self._runtimes[entry.kind], self._ends.put_nowait, key
                    )
            elif (timer := self._timers.pop(key, None)) is not None:
                timer.cancel()
                self._bodies.pop(key, None)

    async def _report(self) -> None:
        while True:
            key = await self._ends.get()
            body = self._bodies.get(key)
            if body is None:
                continue  # it was put out in the last moment
            try:
                await self._client.merge_patch(
                    TRAINING_JOBS,
                    {"status": ended(body)},
                    name=key[1],
                    namespace=key[0],
                    field_manager=FIELD_MANAGER,
                    subresource="status",
                )
            except UnavailableError as error:
                say(f"the end of {key[0]}/{key[1]} is repeated: {error}")
                self._ends.put_nowait(key)


def ended(body: Json) -> Json:
    """The change of a status that ends a job well, as the operator writes it when all workers have ended."""
    status = TrainingJobStatus.model_validate(body["status"])
    now = now_text()
    conditions = status.conditions
    for type_, holds, reason in (
        (ConditionType.ADMITTED, False, Reason.NOT_ADMITTED),
        (ConditionType.RECONCILING, False, Reason.UP_TO_DATE),
        (ConditionType.SUCCEEDED, True, Reason.TRAINING_SUCCEEDED),
    ):
        conditions = set_condition(
            conditions,
            type_=type_,
            status=holds,
            reason=reason,
            message="",
            generation=int(body["metadata"]["generation"]),
            now=now,
        )
    return {
        "conditions": [condition.to_json() for condition in conditions],
        "placement": [],
        "state": "Succeeded",
        "completionTime": now,
    }
