"""Ends what a watchdog outside of a container has started, when the watchdog itself is killed.

In a container everything ends with process 1, and under the fork server that one looks after it. Anywhere else a small
process waits for the watchdog's end, however it comes, and then ends what carries its mark in its environment.
"""

from __future__ import annotations

import os
import signal

from stoker_watchdog.orphans import StillThere, sweep

MARK = "STOKER_WATCHDOG"


def watch_over() -> None:
    """Start that process, and set the mark. To be called before there are threads or an event loop."""
    token = os.urandom(8).hex()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        _wait_and_sweep(reader, writer, token)
    os.close(reader)
    os.environ[MARK] = token
    # `writer` stays open for as long as this process lives.


def _wait_and_sweep(reader: int, writer: int, token: str) -> None:
    try:
        os.setsid()
        os.close(writer)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)  # whoever reads our output must see its end
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(reader, 1)
        sweep(MARK, token)
    except (OSError, StillThere):
        pass
    finally:
        os._exit(0)
