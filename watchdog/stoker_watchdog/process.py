"""One process that runs for a call: its output is handed over as it comes, then its end, exactly once.

The end is that of the process that was started. What it has started itself and left behind is killed then, with its
group; whatever still holds the pipes is not waited for.
"""

from __future__ import annotations

import os
from typing import Protocol

from stoker_watchdog.children import end_group
from stoker_watchdog.readiness import Readiness

_READ = 64 * 1024
"""What a pipe holds, mostly; a larger buffer would be mapped anew for each read."""
_PIPE = 1024 * 1024
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT

LIVING: set[int] = set()
"""The pids that are waited for here."""


class ProcessOwner(Protocol):
    """Who started a process. All calls come from the loop."""

    def output(self, data: bytes) -> None:
        """A piece of its standard output."""

    def error_output(self, data: bytes) -> None:
        """A piece of its standard error."""

    def exited(self, status: int) -> None:
        """It has ended, with this wait status; everything it wrote has been handed over."""


class Process:
    """Takes over the reading ends of the pipes (`err` is -1 without one), makes them non-blocking, and closes them."""

    __slots__ = ("_err", "_held", "_out", "_owner", "_pidfd", "_readiness", "pid")

    def __init__(self, readiness: Readiness, pid: int, out: int, err: int, owner: ProcessOwner) -> None:
        self._readiness = readiness
        self._owner = owner
        self._out = out
        self._err = err
        self._held = False
        self.pid = pid
        LIVING.add(pid)
        self._pidfd = os.pidfd_open(pid)
        os.set_blocking(out, False)
        readiness.add(out, self._read_out)
        if err >= 0:
            os.set_blocking(err, False)
            readiness.add(err, self._read_err)
        readiness.add(self._pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    def hold(self) -> None:
        """Read no more of its output for now; the pipe fills, and the process waits."""
        if not self._held and self._out >= 0:
            self._held = True
            self._readiness.remove(self._out)

    def release(self) -> None:
        if self._held and self._out >= 0:
            self._readiness.add(self._out, self._read_out)
        self._held = False

    def kill(self) -> None:
        """End it and all of its group. `exited` follows."""
        if self._pidfd >= 0:
            end_group(self.pid)

    def _read_out(self) -> None:
        data = _read(self._out) if self._out >= 0 else None
        if data:
            self._owner.output(data)
        elif data is not None:
            self._out = self._close(self._out)

    def _read_err(self) -> None:
        data = _read(self._err) if self._err >= 0 else None
        if data:
            self._owner.error_output(data)
        elif data is not None:
            self._err = self._close(self._err)

    def _close(self, descriptor: int) -> int:
        if descriptor >= 0:
            self._readiness.forget(descriptor)
            os.close(descriptor)
        return -1

    def _reap(self) -> None:
        if self._pidfd < 0 or os.waitid(os.P_PIDFD, self._pidfd, _ENDED) is None:
            return
        end_group(self.pid)  # before its pid can be anybody else's
        self._pidfd = self._close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        LIVING.discard(self.pid)
        self._hand_over_rest()
        self.release()
        self._out, self._err = self._close(self._out), self._close(self._err)
        owner, self._owner = self._owner, _NOBODY
        owner.exited(status)

    def _hand_over_rest(self) -> None:
        """What is left in the pipes, and no more than they can hold: another process may write on for ever."""
        left = _PIPE
        while self._out >= 0 and left > 0 and (data := _read(self._out)):
            left -= len(data)
            self._owner.output(data)
        left = _PIPE
        while self._err >= 0 and left > 0 and (data := _read(self._err)):
            left -= len(data)
            self._owner.error_output(data)


class _Nobody:
    def output(self, data: bytes) -> None: ...
    def error_output(self, data: bytes) -> None: ...
    def exited(self, status: int) -> None: ...


_NOBODY = _Nobody()


def _read(descriptor: int) -> bytes | None:
    """What is there; nothing at the end of the pipe; None when nothing is there yet."""
    try:
        return os.read(descriptor, _READ)
    except BlockingIOError:
        return None
