"""Reading a status as tests compare it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def condition_of(status: Json, type_: str) -> Json:
    found = next((c for c in status.get("conditions") or () if c["type"] == type_), None)
    return found or {"status": "absent", "reason": "", "message": ""}


def true_conditions(status: Json) -> set[str]:
    return {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}


def without_times(status: Json) -> Json:
    """A status as it compares: without times, conditions by type (their order has no meaning)."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: cleaned(item)
                for key, item in value.items()
                if key
                not in ("lastTransitionTime", "time", "queuedTime", "startTime", "completionTime", "node")
            }
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        return value

    plain = {k: v for k, v in cleaned(status).items() if k != "placement"}
    return plain | {"conditions": sorted(plain["conditions"], key=lambda c: str(c["type"]))}
