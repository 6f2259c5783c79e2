"""`python -m datahall.control`: run the operator."""

from __future__ import annotations

import gc
import logging
import os
import sys

import structlog
import uvloop

from datahall.control.lease import LeaseLostError
from datahall.control.operator import Operator, observe_call
from datahall.control.settings import Settings, SettingsError
from datahall.kube import KubeClient, KubeConfigError


def _set_up_logs(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=max(number, logging.INFO), format="%(message)s", stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


async def _run(settings: Settings) -> None:
    # More than looks, pods, Events and the lease can have in flight: whoever asks must not wait for a connection.
    async with await KubeClient.connect(
        user_agent="datahall-operator", on_call=observe_call, connections=settings.workers + 32
    ) as client:
        await Operator(client, settings).run()


def main() -> int:
    """Run until told to stop; the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2
    _set_up_logs(settings.log_level)
    # Nearly everything here lives long or dies at once by its count: collecting cycles often only costs time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    log = structlog.get_logger(__name__)
    code = 1
    try:
        uvloop.run(_bounded(settings))
        code = 0
    except KubeConfigError as error:
        log.error("cannot reach Kubernetes", error=str(error))
        code = 2
    except LeaseLostError as error:
        log.error("lease lost", error=str(error))
    return code


async def _bounded(settings: Settings) -> None:
    """Run, then end without waiting for kopf's own farewell: a process that lost the lease must not linger."""
    try:
        await _run(settings)
    except LeaseLostError as error:
        structlog.get_logger(__name__).error("lease lost", error=str(error))
        sys.stderr.flush()
        os._exit(1)
    except KubeConfigError:
        raise
    except Exception:
        structlog.get_logger(__name__).exception("the operator ends")
        sys.stderr.flush()
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
