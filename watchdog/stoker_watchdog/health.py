"""Asks a runner for its health every so often, and tells when that changes: readiness soon, liveness later.

The first answer counts alone, before the replica is ready: what starts unhealthy gets no call, and an update whose
replicas are so takes nothing away from the version before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from stoker_watchdog.front import Front
from stoker_watchdog.runner import Runner
from stoker_watchdog.settings import Settings

MAX_REASON = 200


class HealthWatch:
    """`tell` gets the reason when the replica becomes unhealthy, and an empty text when it can serve again."""

    def __init__(self, settings: Settings, runner: Runner, front: Front, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._runner = runner
        self._front = front
        self._tell = tell
        self._bad = 0
        self._good = 0
        self._since = 0.0
        self._asked: asyncio.Future[str] | None = None

    async def first(self) -> None:
        """Before ready."""
        if not self._settings.health_delay:
            reason = await self._ask()
            if reason:
                self._change(reason)

    async def run(self) -> None:
        await asyncio.sleep(self._settings.health_delay)
        while True:
            await asyncio.sleep(self._settings.health_period)
            self._take(await self._ask())

    async def _ask(self) -> str:
        seconds = self._settings.health_timeout
        if self._asked is not None and not self._asked.done():
            return "`health` does not end, though it was cancelled"
        asked = self._asked = asyncio.ensure_future(self._runner.health())
        await asyncio.wait({asked}, timeout=seconds)
        if not asked.done():
            asked.cancel()
            return f"`health` gave no answer within {seconds:g} s"
        return "`health` was cancelled" if asked.cancelled() else one_line(asked.result())

    def _take(self, reason: str) -> None:
        settings, front = self._settings, self._front
        self._bad, self._good = (self._bad + 1, 0) if reason else (0, self._good + 1)
        if front.unhealthy:
            if self._good >= settings.health_successes:
                self._change("")
            elif settings.replace_after and monotonic() - self._since >= settings.replace_after:
                front.alive = False
        elif self._bad >= settings.health_failures:
            self._change(reason)

    def _change(self, reason: str) -> None:
        self._since = monotonic()
        self._front.unhealthy = reason
        self._front.alive = True
        self._good = 0
        self._tell(reason)


def one_line(text: str) -> str:
    """So much of a reason as is passed on."""
    return " ".join(text.split())[:MAX_REASON]
