"""Starts trainer ranks as real processes in milliseconds: torch is imported once, each rank is a fork.

Reads one JSON request per line, answers with one JSON line: {"start": {"env", "stdout", "stderr"}} -> pid,
{"poll": pid} -> exit code or null (negative: the signal), {"kill": [pid, signal]} -> null.
"""

import json
import os
import sys
from typing import Any

import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401 - imported so that forks need not

import datahall_trainer.run  # noqa: F401 - and so is PyTorch
from datahall_trainer.__main__ import main


def start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.environ.update(request["env"])
    main()
    os._exit(99)


def poll(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


for line in sys.stdin:
    request = json.loads(line)
    if "start" in request:
        answer: int | None = start(request["start"])
    elif "poll" in request:
        answer = poll(request["poll"])
    else:
        os.kill(*request["kill"])
        answer = None
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
