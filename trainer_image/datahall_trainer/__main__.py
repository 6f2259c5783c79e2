"""`python -m datahall_trainer`: one worker of a TrainingJob."""

from __future__ import annotations

import logging
import os
import sys

# Before torch and transformers are imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what is not in the claim is an error, not a download
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
os.environ.setdefault("HF_HOME", "/tmp/huggingface")  # noqa: S108 - the root file system may be read-only

from datahall_trainer import logs, termination
from datahall_trainer.errors import TrainerError, one_line
from datahall_trainer.interrupt import Interrupt
from datahall_trainer.launcher import launch
from datahall_trainer.place import Place

_log = logging.getLogger("datahall_trainer")


def main() -> None:
    """The program: ends the process with an exit code of the contract."""
    code = worker()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after a lost peer the communication library's threads may never end by themselves.
    os._exit(code)


def worker() -> int:
    """Runs this worker, or this rank of it, and returns the exit code."""
    logs.setup(0)
    try:
        place = Place.from_environment(os.environ)
        logs.setup(place.rank)
        if place.local_world_size > 1 and "DATAHALL_LOCAL_RANK" not in os.environ:
            return launch(place.local_world_size, os.environ)
        from datahall_trainer.run import run  # PyTorch: seconds

        interrupt = Interrupt()
        interrupt.install()
        run(place, os.environ, interrupt)
    except TrainerError as error:
        _log.error("%s: %s", error.cause, one_line(error))
        termination.failed(error)
        return error.exit_code
    except BaseException as error:
        _log.exception("%s", one_line(error))
        termination.failed(error)
        return TrainerError.exit_code
    return 0


if __name__ == "__main__":
    main()
