"""Whether the disk of our own broker has room, and what the broker says when it had none.

A nats-server whose disk is full in the middle of a write takes nothing more for that stream, and answers nothing, until
it is started again. So calls are refused while there is still room for the outcomes of those that are stored; and where
something else filled the disk, control asks the broker what is wrong, and ends it when there is room: the supervisor
starts it again.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.streams import STREAMS
from stoker_sdk.broker.requests import ask

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.queue")

KEPT_FREE: Final = 64 * 1024 * 1024
"""Bytes of the disk that new calls leave to the outcomes of stored ones, and to the broker's own files."""
_KNOWN_SECONDS: Final = 0.1
_PURGE_FAILED: Final = 10051


class Room:
    """The room in a folder; without one (the user's own broker) there always is some."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._free = 0
        self._asked_at = -_KNOWN_SECONDS

    def refusal(self, size: int = 0) -> str:
        """Why a call with a body of so many bytes cannot be stored; empty if it can."""
        if self._folder is None or self._left() - size >= KEPT_FREE or self._look(self._folder) - size >= KEPT_FREE:
            return ""
        return (
            f"the broker's disk is full: {self._free >> 20} MiB are left, {KEPT_FREE >> 20} are kept for what is stored"
        )

    def _left(self) -> int:
        """As it was a moment ago, which is good enough to take a call, but not to refuse one."""
        if self._folder is not None and time.monotonic() - self._asked_at >= _KNOWN_SECONDS:
            self._look(self._folder)
        return self._free

    def _look(self, folder: Path) -> int:
        self._asked_at = time.monotonic()
        self._free = free_bytes(folder)
        return self._free


def free_bytes(folder: Path) -> int:
    """Bytes that the broker may still write there; plenty where nobody can say."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return status.f_bavail * status.f_frsize


async def write_error(client: Client) -> str:
    """Why the broker cannot write any more, in its own words; empty if it can. Raises `Unavailable`.

    A publish would get no answer. To remove what is not there does, and changes nothing.
    """
    for stream in STREAMS:
        nothing = stream["subjects"][0].replace("*", "-").replace(">", "-")
        error = await ask(client, f"STREAM.PURGE.{stream['name']}", {"filter": nothing})
        if error is not None and error.err_code == _PURGE_FAILED:
            return f"{stream['name']}: {error.description.rpartition(': ')[2]}"
    return ""


class Mender:
    """Control's: ends a broker that cannot write when it could again. `pid_file` is our own broker's."""

    def __init__(self, folder: Path, pid_file: Path) -> None:
        self._folder = folder
        self._pid_file = pid_file
        self._told = ""

    async def look(self, client: Client) -> None:
        """Raises `Unavailable`."""
        reason = await write_error(client)
        if reason != self._told:
            self._told = reason
            if reason:
                log.error("the broker cannot write (%s): async calls are refused until there is room", reason)
        if reason and free_bytes(self._folder) >= KEPT_FREE:
            self._end_broker()

    def _end_broker(self) -> None:
        try:
            pid = int(self._pid_file.read_text())
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if b"nats-server" in line and str(self._pid_file.parent).encode() in line:
            log.warning("there is room again: the broker is started again")
            os.kill(pid, signal.SIGTERM)
