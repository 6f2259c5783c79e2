"""What an operator process is told from outside: environment variables, read once at start."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(ValueError):
    """An environment variable is missing or has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one operator process; each field is followed by its variable, unit and default."""

    pod_name: str
    """POD_NAME, default the host name: half of the identity that holds the lease."""

    namespace: str
    """POD_NAMESPACE, default `datahall-system`: where the lease lives."""

    address: str
    """POD_IP and the report port: where a standby sends trainers to while this process leads. Default 127.0.0.1."""

    trainer_image: str
    """DATAHALL_TRAINER_IMAGE, default `datahall.dev/trainer:dev`."""

    image_pull_policy: str
    """DATAHALL_IMAGE_PULL_POLICY, default IfNotPresent."""

    priority_class: str | None
    """DATAHALL_PRIORITY_CLASS: PriorityClass of training pods, with preemptionPolicy Never. Absent: none is set."""

    report_url: str | None
    """DATAHALL_REPORT_URL: base URL that trainers report to; absent = trainers do not report."""

    report_port: int
    """DATAHALL_REPORT_PORT, default 8080."""

    probe_port: int
    """DATAHALL_PROBE_PORT, default 8081: /livez, /readyz, /metrics."""

    workers: int
    """DATAHALL_WORKERS, default 32: looks in flight; making pods has workers of its own."""

    writes_per_second: float
    """DATAHALL_WRITES_PER_SECOND, default 500: ceiling of API writes, a brake for runaway loops."""

    start_timeout_seconds: float
    """DATAHALL_START_TIMEOUT_SECONDS, default 300: how long pods of an admitted gang may fail to start."""

    lease_seconds: float
    """DATAHALL_LEASE_SECONDS, default 15: how long a dead leader is waited for."""

    log_level: str
    """DATAHALL_LOG_LEVEL, default info."""

    @property
    def identity(self) -> str:
        """Who holds the lease, and where it answers: `POD/ADDRESS`."""
        return f"{self.pod_name}/{self.address}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: a number is not one, or out of range.
        """
        report_port = _integer(environ, "DATAHALL_REPORT_PORT", 8080, 0, 65535)
        return cls(
            pod_name=environ.get("POD_NAME") or socket.gethostname(),
            namespace=environ.get("POD_NAMESPACE") or "datahall-system",
            address=f"{_host(environ.get('POD_IP') or '127.0.0.1')}:{report_port}",
            trainer_image=environ.get("DATAHALL_TRAINER_IMAGE") or "datahall.dev/trainer:dev",
            image_pull_policy=environ.get("DATAHALL_IMAGE_PULL_POLICY") or "IfNotPresent",
            priority_class=environ.get("DATAHALL_PRIORITY_CLASS") or None,
            report_url=environ.get("DATAHALL_REPORT_URL") or None,
            report_port=report_port,
            probe_port=_integer(environ, "DATAHALL_PROBE_PORT", 8081, 0, 65535),
            workers=_integer(environ, "DATAHALL_WORKERS", 32, 1, 1024),
            writes_per_second=float(_integer(environ, "DATAHALL_WRITES_PER_SECOND", 500, 1, 100_000)),
            start_timeout_seconds=float(_integer(environ, "DATAHALL_START_TIMEOUT_SECONDS", 300, 1, 86_400)),
            lease_seconds=float(_integer(environ, "DATAHALL_LEASE_SECONDS", 15, 3, 3600)),
            log_level=environ.get("DATAHALL_LOG_LEVEL") or "info",
        )


def _host(address: str) -> str:
    """An IP address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a whole number") from None
    if not low <= value <= high:
        raise SettingsError(f"{name}: {value} is not between {low} and {high}")
    return value
