"""What a process that is started when it is wanted needs to know when to end: whether it is, or just was, in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_LOOK_SECONDS: Final = 5.0


class Activity:
    """`with activity:` around what is being done; made inside the loop."""

    def __init__(self) -> None:
        self._running = 0
        self._last = asyncio.get_running_loop().time()

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *error: object) -> None:
        self._running -= 1
        self._last = asyncio.get_running_loop().time()

    def has_rested(self, seconds: float) -> bool:
        """Nothing is being done, and nothing ended within the last so many seconds."""
        return not self._running and asyncio.get_running_loop().time() - self._last >= seconds


async def until_idle(stop: asyncio.Event, is_idle: Callable[[], bool], seconds: float) -> None:
    """Return when told to stop, or when there is nothing to do. What comes later starts the next process.

    `seconds` is how soon the end of work may be noticed at the latest, five at most.
    """
    while not is_idle():
        try:
            async with asyncio.timeout(min(seconds, _LOOK_SECONDS)):
                await stop.wait()
            return
        except TimeoutError:
            pass
