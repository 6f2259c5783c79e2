"""The engine process: load, say so, then one batch after the other until the HTTP process closes the line."""

import logging
import os
import signal
import socket
import time

import torch

from .. import config as server_config
from .. import logs, termination
from ..errors import StartError
from . import protocol, threads
from .classifier import Classifier, LostDeviceError

_log = logging.getLogger(__name__)


def run(descriptor: int) -> int:
    """Serve batches on the socket with this file descriptor. Returns the exit code."""
    logs.configure()
    # SIGTERM is for the HTTP process, which still needs us to finish what it holds; a terminal's Ctrl-C goes to
    # the whole group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = protocol.BlockingChannel(socket.socket(fileno=descriptor))
    try:
        classifier = _load(channel)
        return _serve(channel, classifier) if classifier else termination.EXIT_BAD_INPUT
    except (BrokenPipeError, ConnectionResetError):
        logs.event(_log, "the HTTP process is gone", level=logging.WARNING)
        return 1
    except LostDeviceError as error:
        logs.event(
            _log,
            "the device failed; only a new process can use it again",
            level=logging.ERROR,
            error=str(error),
        )
        return 1


def _load(channel: protocol.BlockingChannel) -> Classifier | None:
    torch.set_num_threads(threads.engine_threads())
    try:
        config, limits = server_config.load(), server_config.Limits.from_environment()
        classifier = Classifier.load(config, limits)
        classifier.warm_up(config.batching.max_batch_size)
    except StartError as error:
        channel.send(protocol.LoadFailed(str(error)))
        return None
    channel.send(protocol.Loaded(classifier.info))
    info = classifier.info
    logs.event(_log, "engine ready", device=info.device, threads=torch.get_num_threads(), pid=os.getpid())
    return classifier


def _serve(channel: protocol.BlockingChannel, classifier: Classifier) -> int:
    while (instances := channel.receive()) is not None:
        started = time.monotonic()
        scores, problems = classifier.compute(instances)
        seconds = time.monotonic() - started
        channel.send(
            protocol.Computed(classes=scores.shape[1], seconds=seconds, problems=problems),
            [scores.astype("<f4", copy=False).tobytes()],
        )
    return 0
