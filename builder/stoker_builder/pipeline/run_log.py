"""The log of a run that goes: kept in memory for who follows, and stored in lots, in order, a moment later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from stoker_sdk.errors import Unavailable
from stoker_sdk.runs import RunLine
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.pipeline")

MAX_LINES: Final = 20_000
MAX_CHARACTERS: Final = 4 * 1024 * 1024
"""Of one run's log. What is beyond is counted only."""
_LINE: Final = 4000
_GATHER_SECONDS: Final = 0.2
_LOT: Final = 1000
_RETRY_SECONDS: Final = 0.5


class RunLog:
    """`store` is given each lot, again until it takes it; `said` is called when there is a new line."""

    def __init__(self, store: Callable[[list[RunLine]], Awaitable[None]], said: Callable[[], None]) -> None:
        self.lines: list[RunLine] = []
        self._store = store
        self._said = said
        self._stored = 0
        self._characters = 0
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    def say(self, text: str, function: str = "") -> None:
        """Add what may be several lines. Control characters are left out, since terminals obey them."""
        for line in text.splitlines() or [""]:
            self._add(RunLine(now_rfc3339(), _printable(line[:_LINE]), function))
        self._said()
        if self._task is None:
            self._task = asyncio.create_task(self._store_soon(), name="store a run's log")

    def _add(self, line: RunLine) -> None:
        if len(self.lines) >= MAX_LINES or self._characters >= MAX_CHARACTERS:
            self._dropped += 1
            return
        self._characters += len(line.text)
        self.lines.append(line)

    async def _store_soon(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        await self._store_all()
        self._task = None

    async def _store_all(self) -> None:
        while lot := self.lines[self._stored : self._stored + _LOT]:
            try:
                await self._store(lot)
                self._stored += len(lot)
            except Unavailable as error:
                log.warning("a run's log waits to be stored: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Return when all is stored."""
        if self._dropped:
            self.lines.append(RunLine(now_rfc3339(), f"({self._dropped} more lines are left out)"))
            self._dropped = 0
        if self._task is not None:
            await self._end_task(self._task)
        await self._store_all()

    async def _end_task(self, task: asyncio.Task[None]) -> None:
        self._task = None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
