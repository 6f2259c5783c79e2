"""The hall under test: a full cluster, and the commands that a user would type against it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SYSTEM = "datahall-system"
POLL_SECONDS = 0.3


class Hall:
    """kubectl, helm and datahall, with the environment that reaches the cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        shown = subprocess.run(
            [sys.executable, "-m", "local_cluster", "env"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        self.environment = dict(os.environ)
        for name, value in re.findall(r"^export (\w+)=(.+)$", shown, flags=re.MULTILINE):
            self.environment[name] = shlex.split(value.replace("$PATH", os.environ["PATH"]))[0]
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        self.environment["KUBECONFIG"] = str(kubeconfig)

    # ---- commands

    def run(self, *command: str, check: bool = True, stdin: str | None = None, timeout: float = 300) -> str:
        """Run a command; its standard output. A failure shows both streams."""
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """`kubectl ...`."""
        return self.run("kubectl", *arguments, check=check, stdin=stdin)

    def apply(self, *objects: dict[str, Any], check: bool = True) -> str:
        """`kubectl apply` of objects; a TrainingJob of that name from an earlier run goes first, with its pods."""
        for body in objects:
            if body["kind"] == "TrainingJob":
                meta = body["metadata"]
                gone = ("--ignore-not-found", "--cascade=foreground", "--timeout=120s")
                self.kubectl("delete", "trainingjob", meta["name"], "-n", meta["namespace"], *gone)
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(listed), check=check)

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """One object; {} where it does not exist."""
        where = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else {}

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of a namespace."""
        chosen = ["-l", selector] if selector else []
        items: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kind, "-n", namespace, *chosen, "-o", "json")
        )["items"]
        return items

    def helm_install(self, *flags: str) -> None:
        """Install or upgrade Datahall by its chart, with the images of this checkout."""
        values = []
        for kind in ("operator", "trainer"):
            repository, _, tag = self.environment[f"DATAHALL_{kind.upper()}_IMAGE"].rpartition(":")
            values += [f"--set=images.{kind}.repository={repository}", f"--set=images.{kind}.tag={tag}"]
        self.run(
            *("helm", "upgrade", "--install", "datahall", "charts/datahall"),
            *("-n", SYSTEM, "--create-namespace", "--wait", "--timeout", "180s"),
            *values,
            *flags,
        )

    # ---- waiting

    def wait(self, what: str, look: Callable[[], Any], seconds: float = 120) -> Any:
        """Poll until `look` gives something true, and give that; fail with what it gave last."""
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if seen:
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self._situation()}")
            time.sleep(POLL_SECONDS)

    def job_in(self, name: str, namespace: str, *states: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a TrainingJob is in one of the states; its status."""

        def look() -> dict[str, Any]:
            status: dict[str, Any] = self.get("trainingjob", name, namespace).get("status", {})
            return status if status.get("state") in states else {}

        found: dict[str, Any] = self.wait(f"TrainingJob {name} in {states}", look, seconds)
        return found

    def condition(self, kind: str, name: str, namespace: str, type_: str) -> dict[str, Any]:
        """One condition of an object; {} where it is not there."""
        conditions = self.get(kind, name, namespace).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {})

    def _situation(self) -> str:
        return self.kubectl("get", "tj,infs,pods", "-A", "-o", "wide", check=False)

    # ---- violence

    def kill_worker(self, pod: str) -> None:
        """SIGKILL the trainer process of a pod, from outside its container."""
        _kill(f"DATAHALL_POD_NAME={pod}", "datahall_trainer")

    def kill_operator(self, pod: str) -> None:
        """SIGKILL the operator process of a pod, from outside its container."""
        _kill(f"POD_NAME={pod}", "datahall.control")

    def leader(self) -> str:
        """Name of the operator pod that holds the lease, "" where none does."""
        lease = self.get("lease", "datahall-operator", SYSTEM)
        return str(lease.get("spec", {}).get("holderIdentity", "")).partition("/")[0]


def _kill(variable: str, program: str) -> None:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile
        if variable.encode() in variables and program.encode() in command:
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError(f"no process {program} with {variable} on this machine")
