"""The operator as a real process: started, killed and started again under one identity."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.waiting import until
from tests.cluster.warm_start import WarmStart

LEASE_SECONDS = 3


class Operator:
    """`python -m datahall.control`, started, killed and started again under one identity."""

    def __init__(
        self,
        login: Path,
        *,
        namespace: str,
        folder: Path,
        name: str = "operator-0",
        warm: WarmStart | None = None,
        **env: str,
    ) -> None:
        self.name = name
        self.report_port, self.probe_port = free_ports(2)
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        self._env = os.environ | {
            "KUBECONFIG": str(login),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace,
            "DATAHALL_REPORT_PORT": str(self.report_port),
            "DATAHALL_PROBE_PORT": str(self.probe_port),
            "DATAHALL_LEASE_SECONDS": str(LEASE_SECONDS),
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._warm, self._pid = warm, 0

    @property
    def running(self) -> bool:
        return bool(self._pid) or (self._process is not None and self._process.poll() is None)

    def start(self) -> None:
        assert not self.running
        if self._warm is not None:
            self._pid = self._warm.start(self._env, self.log)
            return
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "datahall.control"]
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and gone."""
        if self._warm is not None and self._pid:
            self._warm.kill(self._pid)
            self._pid = 0
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(15)
        finally:
            self._process.kill()

    async def leads(self, seconds: float = 20) -> None:
        async def leading() -> bool:
            assert self.running, self.log.read_text()[-3000:]
            return (await self.metrics()).get("datahall_leader") == 1

        await until(leading, seconds=seconds, what=f"{self.name} leads")

    async def metrics(self) -> dict[str, float]:
        text = (await self.probe("metrics"))[1]
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(number) for name, _, number in lines}

    async def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a probe; (0, "") where nobody answers."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.probe_port}/{path}", timeout=5
                ) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(ask)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()
