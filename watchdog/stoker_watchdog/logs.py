"""The handler's prints, line by line, with time and call id, straight into the replica's own log file.

A file takes what it is given at once, so no reader can make a call wait, and what was printed just before a crash is
there. What keeps it bounded: lines are cut at 64 KiB, a replica may write 10 MB a second, and the file is put aside at
16 MB, one old one being kept. What was dropped is counted, and the log says so.

A record is `RS time SP call-id SP text LF`, where RS is the byte 0x1e and the call id is `-` outside of calls. Lines
without RS come from below Python (a subprocess, a C library) and have neither time nor call id.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import traceback
from contextvars import ContextVar

MAX_LINE = 64 * 1024
FILE_SIZE = 16 * 1024 * 1024
RATE = 10_000_000
BURST = 20_000_000
_OUR_FRAMES = ("stoker_watchdog", "importlib", "/asyncio/", "/concurrent/futures/", "uvloop/")


class CallLog:
    """What one call has printed without ending the line yet."""

    __slots__ = ("id", "partial")

    def __init__(self, id: str) -> None:
        self.id = id
        self.partial = ""


_outside = CallLog("-")
current_call: ContextVar[CallLog] = ContextVar("current_call", default=_outside)


class LogFile:
    """Writes records to descriptor 2, which is the log file; rotates it where it has a path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = os.fstat(2).st_size if path else 0
        self._budget = float(BURST)
        self._refilled = time.monotonic()
        self._dropped = 0
        self._lock = threading.Lock()

    def write(self, call: str, lines: list[str]) -> None:
        stamp = _now()
        self._put(b"".join([_record(stamp, call, line) for line in lines]), len(lines))

    def _put(self, block: bytes, lines: int) -> None:
        with self._lock:
            if not self._allow(len(block)):
                self._dropped += lines
                return
            if self._dropped:
                notice = f"[stoker: {self._dropped} lines dropped here: more than {RATE // 1_000_000} MB a second]"
                self._dropped = 0
                block = _record(_now(), "-", notice) + block
            self._write_all(block)
            self._written += len(block)
            if self._path and self._written > FILE_SIZE:
                self._rotate()

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(2, view) :]
        except OSError:
            pass  # a full disk must not fail a call

    def _allow(self, size: int) -> bool:
        now = time.monotonic()
        self._budget = min(BURST, self._budget + (now - self._refilled) * RATE)
        self._refilled = now
        if size > self._budget:
            return False
        self._budget -= size
        return True

    def _rotate(self) -> None:
        try:
            os.replace(self._path, self._path + ".1")
            fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        os.dup2(fresh, 1)
        os.dup2(fresh, 2)
        os.close(fresh)
        self._written = 0


def _now() -> str:
    nanoseconds = time.time_ns()
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest // 1000:06d}Z"


def _record(stamp: str, call: str, line: str) -> bytes:
    text = line.encode("utf-8", "backslashreplace")
    if len(text) > MAX_LINE:
        text = text[:MAX_LINE] + b" [stoker: %d bytes of this line dropped]" % (len(text) - MAX_LINE)
    return b"\x1e%b %b %b\n" % (stamp.encode(), call.encode(), text)


class LogStream(io.TextIOBase):
    """Stands in for sys.stdout and sys.stderr. Whole lines become records; the rest waits in its call's `CallLog`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, file: LogFile) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        call = current_call.get()
        whole = call.partial + text
        if "\n" not in whole and len(whole) <= MAX_LINE:
            call.partial = whole
            return len(text)
        *lines, call.partial = whole.split("\n")
        if len(call.partial) > MAX_LINE:
            lines.append(call.partial)
            call.partial = ""
        self._file.write(call.id, lines)
        return len(text)

    def flush(self) -> None: ...

    def lines(self, call: str, lines: list[str]) -> None:
        """Whole lines of a call (`-` outside of calls)."""
        self._file.write(call, lines)

    def end_call(self, call: CallLog) -> None:
        """The call is over: an unfinished line is a line now."""
        if call.partial:
            self._file.write(call.id, [call.partial])
            call.partial = ""

    def exception(self, call: str, what: str, error: BaseException) -> None:
        """A traceback, each line with the call's id, from the first frame on that is the function's."""
        frames = error.__traceback__
        while frames is not None and any(part in frames.tb_frame.f_code.co_filename for part in _OUR_FRAMES):
            frames = frames.tb_next
        lines = "".join(traceback.format_exception(type(error), error, frames)).rstrip().split("\n")
        self._file.write(call, [what, *lines])


def install(path: str) -> LogStream:
    """Make prints go to the log from now on."""
    stream = LogStream(LogFile(path))
    sys.stdout = stream
    sys.stderr = stream
    return stream
