"""A program's output as lines of the log, with the stream's name before each where that is asked for (section 8.8)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker_watchdog.logs import LogStream
    from stoker_watchdog.options import Options


class OutputLines:
    """One stream of one process. A line longer than `log_buffer_size` is logged in pieces; reading never stops."""

    __slots__ = ("_call", "_limit", "_log", "_prefix", "_rest")

    def __init__(self, options: Options, log: LogStream, call: str, stream: str) -> None:
        self._log = log
        self._call = call
        self._prefix = stream if options.prefix_logs else ""
        self._limit = options.log_buffer_size
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        while 0 < self._limit < len(self._rest):
            lines.append(self._rest[: self._limit])
            self._rest = self._rest[self._limit :]
        if lines:
            self._put(lines)

    def close(self) -> None:
        """The stream has ended: an unfinished line is a line now."""
        if self._rest:
            self._put([self._rest])
            self._rest = b""

    def _put(self, lines: list[bytes]) -> None:
        prefix = f"{clock()} {self._prefix}: " if self._prefix else ""
        pieces = [piece for line in lines for piece in self._cut(line)]
        self._log.lines(self._call, [prefix + piece.decode("utf-8", "backslashreplace") for piece in pieces])

    def _cut(self, line: bytes) -> list[bytes]:
        if not 0 < self._limit < len(line):
            return [line]
        return [line[at : at + self._limit] for at in range(0, len(line), self._limit)]


def clock() -> str:
    """Date and time as the contract's watchdogs write them: `2026/01/31 12:00:00`."""
    return time.strftime("%Y/%m/%d %H:%M:%S")
