"""Passes a file on, a piece at a time, no faster than it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import IO

_PIECE = 256 * 1024


class Pump:
    """`write` gets the pieces, `done` is called once at the end: with False when the file ended too early."""

    __slots__ = ("_done", "_file", "_held", "_left", "_loop", "_scheduled", "_write")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        file: IO[bytes],
        size: int,
        write: Callable[[bytes], None],
        done: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._file = file
        self._left = size
        self._write = write
        self._done: Callable[[bool], None] | None = done
        self._held = False
        self._scheduled = False

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        self._soon()

    def stop(self) -> None:
        """Nobody takes any more: `done` is not called."""
        self._done = None

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.run)

    def run(self) -> None:
        """Begin, and go on at the loop's next turn."""
        self._scheduled = False
        if self._done is None or self._held:
            return
        data = self._file.read(min(_PIECE, self._left)) if self._left else b""
        self._left -= len(data)
        if data:
            self._write(data)
        if self._left and data:
            self._soon()
        else:
            done, self._done = self._done, None
            done(not self._left)
