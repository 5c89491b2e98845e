"""Brings what a container prints into the log file of its replica, where it is read as that of any other.

So logs outlive their containers, and a function that becomes a container keeps what it printed as a process. What is
printed while no control process runs waits at the Engine.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Final

from stoker_gateway.providers.docker.engine import Engine
from stoker_gateway.providers.local.logfiles import open_safely

FILE_SIZE: Final = 16 * 1024 * 1024
RATE: Final = 10_000_000
"""Bytes a second that are read of one container; the Engine drops what is too much."""
# The folder may be another user's, who could have put something else there.
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAX_LINE: Final = 64 * 1024
_TAIL: Final = 256 * 1024


class LogPump:
    """The log of one replica. `last` is the last line that was printed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _last_stamp(path)
        self._partial: dict[int, bytes] = {}
        self.last = ""

    async def run(self, engine: Engine, container: str) -> None:
        """Until the container ends. Raises `StokerError`."""
        already = self._stamp
        async with engine.logs(container, _since(already)) as pieces, aclosing(pieces):
            async for stream, piece in pieces:
                stamp, text = self._line(stream, piece)
                if stamp > already:
                    await asyncio.sleep(len(piece) / RATE if self._write(stamp, text) else 0)

    def _line(self, stream: int, piece: bytes) -> tuple[str, bytes]:
        """The time and the text of a whole line; of a piece of one an empty time."""
        stamp, _, text = piece.partition(b" ")
        text = self._partial.pop(stream, b"") + text
        if not text.endswith(b"\n") and len(text) < _MAX_LINE:
            self._partial[stream] = text
            return "", b""
        whole, _, rest = stamp.decode("ascii", "replace").partition(".")
        return f"{whole}.{rest.removesuffix('Z').ljust(6, '0')[:6]}Z", text.rstrip(b"\n")

    def _write(self, stamp: str, text: bytes) -> bool:
        """The format is that of the watchdog's own log files."""
        self._stamp, self.last = stamp, text.decode(errors="replace")[:500]
        try:
            descriptor = os.open(self._path, _APPEND, 0o600)
        except OSError:
            return False  # a full disk must not end a function
        try:
            os.write(descriptor, b"\x1e%b - %b\n" % (stamp.encode(), text))
            if os.fstat(descriptor).st_size > FILE_SIZE:
                self._path.replace(f"{self._path}.1")
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return True


def _last_stamp(path: Path) -> str:
    """Up to when the log had been read by an earlier control process; empty for a new one."""
    file = open_safely(path)
    if file is None:
        return ""
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        _, found, record = (b"\n" + file.read()).rpartition(b"\n\x1e")
    return record.partition(b" ")[0].decode("ascii", "replace") if found else ""


def _since(stamp: str) -> str:
    try:
        return f"{datetime.fromisoformat(stamp).timestamp():.6f}"
    except ValueError:
        return "0"
