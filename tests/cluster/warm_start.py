"""Start operators in a tenth of a second: the imports are done once, and each operator is a fork of that.

A test that kills the operator forty times would else spend its time importing. What is forked is a process like any
other, with a pid of its own, and kill -9 ends it like any other.

Protocol, one JSON line each way: `{"environ": ..., "log": PATH}` -> pid; `{"kill": pid}` -> its wait status.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


class WarmStart:
    """The parent of operators; a context manager."""

    def __enter__(self) -> WarmStart:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._ask({"hello": 1}) == 0
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def start(self, environ: dict[str, str], log: Path) -> int:
        return self._ask({"environ": environ, "log": str(log)})

    def kill(self, pid: int) -> int:
        return self._ask({"kill": pid})

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline()))


def _serve() -> None:
    import kubernetes.aio.client
    import kubernetes.aio.config  # noqa: F401
    from kubernetes.config import kube_config

    from datahall.control.__main__ import main

    children: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        answer = 0
        if "environ" in question:
            answer = os.fork()
            if answer == 0:
                log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for number in (1, 2):
                    os.dup2(log, number)
                os.close(0)
                os.environ.clear()
                os.environ.update(question["environ"])
                # Read at import by the library that kopf logs in with.
                kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ["KUBECONFIG"]
                os._exit(main())
            children.add(answer)
        elif "kill" in question:
            os.kill(question["kill"], signal.SIGKILL)
            answer = os.waitpid(question["kill"], 0)[1]
            children.discard(question["kill"])
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
