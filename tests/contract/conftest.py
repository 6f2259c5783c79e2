from __future__ import annotations

import asyncio

# Python 3.11 makes an event loop for whoever asks in the main thread, as the looptime plugin does even for tests
# without one, and nobody closes that one. Said once that there is none, it makes none.
asyncio.set_event_loop(None)
