"""Puts the parts together and sees the process through its life: listen, load, serve, leave."""

import asyncio
import contextlib
import logging
import socket

from . import config as server_config
from . import logs, termination
from .batching import BatchLimits
from .config import Limits, ServerConfig
from .dispatch import Dispatcher
from .drain import ENGINE_STOP_SECONDS, DrainingServer
from .engine.client import EngineProcess
from .engine.protocol import ModelInfo
from .errors import EngineDiedError, StartError
from .http import app
from .lifecycle import Lifecycle
from .metrics import Metrics

_log = logging.getLogger(__name__)

FAREWELL_SECONDS = 1.0
"""How long a server whose engine died still answers 503: a sentence is better than a broken connection."""


class Replica:
    """One server process.

    The HTTP side is up before the model is loaded, so that probes and clients get a reason instead of a refused
    connection.
    """

    def __init__(self, config: ServerConfig, limits: Limits) -> None:
        self._config = config
        self._metrics = Metrics()
        self._lifecycle = Lifecycle(model_uri=config.model.uri, metrics=self._metrics)
        self._engine = EngineProcess(hang_seconds=max(60.0, 4 * config.timeout_seconds))
        self._dispatcher = Dispatcher(
            engine=self._engine,
            limits=BatchLimits(
                max_batch_size=config.batching.max_batch_size,
                max_delay_seconds=config.batching.max_delay_milliseconds / 1000,
                max_queue=config.batching.max_queue,
            ),
            timeout_seconds=config.timeout_seconds,
            metrics=self._metrics,
        )
        room = app.Room(
            config=config,
            limits=limits,
            lifecycle=self._lifecycle,
            dispatcher=self._dispatcher,
            metrics=self._metrics,
        )
        self._server = DrainingServer(app.build(room), lifecycle=self._lifecycle, limits=limits)

    async def run(self) -> int:
        """Serve until SIGTERM or until the engine fails. Returns the exit code."""
        listener = _listen(self._config.port)
        logs.event(_log, "listening", port=listener.getsockname()[1], model=self._config.model.uri)
        life = asyncio.create_task(self._live())
        try:
            await self._server.serve(sockets=[listener])
        finally:
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life
            await self._engine.stop(patience_seconds=ENGINE_STOP_SECONDS)
        logs.event(_log, "stopped", exit_code=self._lifecycle.exit_code)
        return self._lifecycle.exit_code

    async def _live(self) -> None:
        """The engine's life: load, serve, and if it ends, end the server."""
        try:
            await self._engine.start()
            self._loaded(await self._engine.load())
            reason = await self._serve_until_death()
        except StartError as error:
            termination.write(cause="BadInput", message=str(error))
            self._lifecycle.fail(str(error), exit_code=termination.EXIT_BAD_INPUT)
        except EngineDiedError as error:
            self._died(error.message)
        except (
            Exception
        ) as error:  # a defect of ours: as bad as a dead engine, and never to be sat out in silence
            _log.exception("the server failed")
            self._died(f"an error inside the server: {type(error).__name__}")
        else:
            self._died(reason)
            await asyncio.sleep(FAREWELL_SECONDS)
        self._server.should_exit = True

    async def _serve_until_death(self) -> str:
        feeding = asyncio.create_task(self._dispatcher.run())
        dying = asyncio.create_task(self._engine.wait())
        try:
            await asyncio.wait([feeding, dying], return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            return await dying
        finally:
            feeding.cancel()
            dying.cancel()

    def _loaded(self, model: ModelInfo) -> None:
        config = self._config
        self._metrics.model_info.labels(
            config.name, config.namespace, model.task, model.digest, model.device
        ).set(1)
        logs.event(
            _log,
            "model loaded",
            digest=model.digest,
            device=model.device,
            seconds=round(model.load_seconds, 3),
        )
        self._lifecycle.loaded(model)

    def _died(self, reason: str) -> None:
        termination.write(cause="Killed" if "killed" in reason else "UserCode", message=reason)
        self._lifecycle.fail(reason, exit_code=termination.EXIT_ENGINE_DIED)
        self._dispatcher.fail(EngineDiedError(reason))


def _listen(port: int) -> socket.socket:
    """A listening socket on all addresses, of both families where the pod has IPv6."""
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
    except OSError:
        return socket.create_server(("0.0.0.0", port), backlog=2048)


async def main() -> int:
    """Run the server that the environment describes."""
    try:
        config, limits = server_config.load(), Limits.from_environment()
    except StartError as error:
        termination.write(cause="BadInput", message=str(error))
        return termination.EXIT_BAD_INPUT
    return await Replica(config, limits).run()
