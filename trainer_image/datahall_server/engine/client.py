"""The HTTP process's end of the engine: start it, load, compute one batch, notice its death, stop it.

The engine is not restarted here. The process says what happened and exits, and the kubelet starts the container
anew: it backs off when that happens again and again, it counts (`kubectl get pods` shows it, the operator reads
it), and a GPU's memory is surely free. A restart in here would hide all that and be a second way to start.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .. import logs
from ..errors import EngineDiedError, StartError
from . import protocol, threads
from .protocol import Instance, ModelInfo, Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What the engine made of a batch.

    Attributes:
        scores: float32 [instances, classes]; each row sums to 1.
        problems: Per instance None, or why its row means nothing.
        seconds: What the engine itself took, without the way there and back.
    """

    scores: npt.NDArray[np.float32]
    problems: list[Problem | None]
    seconds: float


class Engine(Protocol):
    """What the dispatcher needs; the tests have one without a process."""

    async def compute(self, instances: Sequence[Instance]) -> BatchResult:
        """Classify a batch; EngineDiedError when the engine is gone."""
        ...


class EngineProcess:
    """The real engine, a child process at the other end of a socket pair.

    Args:
        hang_seconds: A batch unanswered for so long means a stuck engine (a lost GPU does that): it is killed,
            and so counts as died.
    """

    def __init__(self, *, hang_seconds: float) -> None:
        self._hang_seconds = hang_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, once started."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child; it begins to load at once."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "datahall_server.engine",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                env=threads.engine_environment(),
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    async def load(self) -> ModelInfo:
        """Wait until the model is loaded and warm.

        Raises:
            StartError: The model can never be served; the message says why.
            EngineDiedError: The engine ended without a word.
        """
        answer, _ = await self._receive()
        match answer:
            case protocol.Loaded(model):
                return model
            case protocol.LoadFailed(message):
                raise StartError(message)
            case _:
                raise EngineDiedError("the engine process answered out of turn")

    async def compute(self, instances: Sequence[Instance]) -> BatchResult:
        """Classify a batch. Not to be called again before it has returned.

        Raises:
            EngineDiedError: The engine ended, or hung and was killed.
        """
        assert self._writer is not None
        try:
            async with asyncio.timeout(self._hang_seconds):
                self._writer.writelines(
                    protocol.pack(protocol.compute_head(instances), [i.data for i in instances])
                )
                await self._writer.drain()
                answer, body = await self._receive()
        except TimeoutError:
            self.kill()
            raise EngineDiedError(
                f"the engine process gave no answer for {self._hang_seconds:g} s and was killed"
            ) from None
        except ConnectionError:
            raise EngineDiedError(await self.wait()) from None
        if not isinstance(answer, protocol.Computed) or len(answer.problems) != len(instances):
            self.kill()
            raise EngineDiedError("the engine process answered out of turn and was killed")
        scores = np.frombuffer(body, dtype="<f4").reshape(len(instances), answer.classes)
        return BatchResult(scores, answer.problems, answer.seconds)

    async def wait(self) -> str:
        """Wait until the child has ended, and say how it ended."""
        assert self._process is not None
        code = await self._process.wait()
        if code >= 0:
            return f"the engine process ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = ", perhaps out of memory" if -code == signal.SIGKILL else ""
        return f"the engine process was killed by {name}{hint}"

    def kill(self) -> None:
        """End the child at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, *, patience_seconds: float = 2.0) -> None:
        """Let the child leave by closing the line, and kill it when it does not within `patience_seconds`."""
        if self._process is None:
            return
        if self._writer is not None:
            self._writer.close()
        try:
            async with asyncio.timeout(patience_seconds):
                await self._process.wait()
        except TimeoutError:
            logs.event(_log, "the engine process did not leave in time", level=logging.WARNING)
            self.kill()
            await self._process.wait()

    async def _receive(self) -> tuple[protocol.Answer, bytes]:
        assert self._reader is not None
        try:
            head_size, body_size = protocol.unpack_lengths(
                await self._reader.readexactly(protocol.LENGTHS_BYTES)
            )
            head = await self._reader.readexactly(head_size)
            return protocol.decode_answer(head), await self._reader.readexactly(body_size)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The line broke, so the child is ending; its exit code follows, but a child stuck in exit must not
            # hold us.
            try:
                async with asyncio.timeout(5.0):
                    reason = await self.wait()
            except TimeoutError:
                self.kill()
                reason = await self.wait()
            raise EngineDiedError(reason) from None
