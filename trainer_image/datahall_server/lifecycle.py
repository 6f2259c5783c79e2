"""Where the server is in its life, in one place: readiness, draining and the exit code all read it.

LOADING -> READY -> DRAINING -> exit 0, and from each of the first two -> FAILED -> a non-zero exit.
"""

import enum
import logging

from . import logs
from .engine.protocol import ModelInfo
from .metrics import Metrics

_log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """A stage of the server's life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Lifecycle:
    """The phase, why it is not READY if it is not, and the model once there is one."""

    def __init__(self, *, model_uri: str, metrics: Metrics) -> None:
        self.phase = Phase.LOADING
        self.reason = f"loading the model {model_uri}"
        self.model: ModelInfo | None = None
        self.exit_code = 0
        metrics.ready.set_function(lambda: float(self.ready))

    @property
    def ready(self) -> bool:
        """Whether new requests should be routed here."""
        return self.phase is Phase.READY

    @property
    def closing(self) -> bool:
        """Whether clients should take their next request elsewhere."""
        return self.phase in (Phase.DRAINING, Phase.FAILED)

    def loaded(self, model: ModelInfo) -> None:
        """The engine has the model. A drain that began meanwhile goes on."""
        self.model = model
        if self.phase is Phase.LOADING:
            self._enter(Phase.READY, "")

    def drain(self) -> None:
        """SIGTERM came."""
        if self.phase is not Phase.FAILED:
            self._enter(Phase.DRAINING, "the server is draining and will stop")

    def fail(self, reason: str, *, exit_code: int) -> None:
        """The server cannot go on; the first reason is the one that counts."""
        if self.phase is not Phase.FAILED:
            self.exit_code = exit_code
            self._enter(Phase.FAILED, reason)

    def _enter(self, phase: Phase, reason: str) -> None:
        logs.event(_log, "phase", phase=phase.value, reason=reason)
        self.phase, self.reason = phase, reason
