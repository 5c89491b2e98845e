"""The log of a watchdog in a container: lines on standard output, as they are."""

from __future__ import annotations

import os
import sys

from stoker_watchdog.logs import LogFile, LogStream

_STDOUT = 1


class ConsoleFile(LogFile):
    """Writes lines where the container's log is taken from. Whoever reads it bounds it."""

    def __init__(self) -> None:
        super().__init__("")

    def write(self, call: str, lines: list[str]) -> None:
        view = memoryview("".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace"))
        with self._lock:
            try:
                while view:
                    view = view[os.write(_STDOUT, view) :]
            except OSError:
                pass  # nobody reads any more, which must not fail a call


def install_console() -> LogStream:
    """Make prints go there from now on, whole lines at a time."""
    stream = LogStream(ConsoleFile())
    sys.stdout = stream
    sys.stderr = stream
    return stream
