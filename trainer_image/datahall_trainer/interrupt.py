"""SIGTERM: noted at any time, acted upon where the run is in a state worth saving."""

from __future__ import annotations

import signal
from types import FrameType

from datahall_trainer.errors import Interrupted


class Interrupt:
    """Whether SIGTERM came."""

    def __init__(self) -> None:
        """Not yet."""
        self.requested = False

    def install(self) -> None:
        """Handles SIGTERM from now on; a second one changes nothing, so a save in progress is finished."""
        signal.signal(signal.SIGTERM, self._note)

    def check(self) -> None:
        """For waits before the first step, when there is nothing to save yet.

        Raises:
            Interrupted: SIGTERM came.
        """
        if self.requested:
            raise Interrupted("SIGTERM before the first step: nothing to save")

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
