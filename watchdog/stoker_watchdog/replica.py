"""The life of a replica, from the fork to its last call: confine, import, open, say ready, serve, drain, end.

What goes wrong before *ready* is told to the fork server in one or two lines, and the traceback is in the log.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import signal
import socket
import sys
import time
from itertools import islice
from typing import Any, NoReturn

import uvloop

from stoker_watchdog import logs
from stoker_watchdog.confine import LISTENER, STATUS, confine, keep_descriptors, use_paths
from stoker_watchdog.front import Front
from stoker_watchdog.handler import HandlerError, load_handler
from stoker_watchdog.native import MissingProgram, run_native
from stoker_watchdog.python_runner import PythonRunner
from stoker_watchdog.runner import Runner
from stoker_watchdog.settings import Settings, read_settings
from stoker_watchdog.zeroes import give_back_zeroes
from stoker_wire.limits import Limits
from stoker_wire.server import Server

_LIMITS = Limits(idle=3600.0)  # proxies close idle connections; a replica never does, or calls would meet the close
_SWITCH_INTERVAL = 0.001  # a handler that computes in a thread gives the loop its turn five times sooner


def run_replica(settings_descriptor: int, listener: int, log: int, status: int, parent: int) -> NoReturn:
    """The main function of a fresh fork, of the fork server or of a zygote. Never returns."""
    code = 1
    gc.disable()  # until it is ready: a collection writes into many pages that it shares so far
    try:
        settings = read_settings(settings_descriptor)
        keep_descriptors(listener, log, status)
        confine(settings, parent)
        if settings.mode == "native":
            run_native(settings)
        stream = logs.install(settings.log)
        use_paths(settings.paths)
        code = _serve(settings, stream)
    except BaseException as error:
        _report_failure(error)
    finally:
        try:
            atexit._run_exitfuncs()
        finally:
            os._exit(code)


def _report_failure(error: BaseException) -> None:
    if isinstance(sys.stderr, logs.LogStream):
        sys.stderr.exception("-", "the replica failed", error)
    code, reason = _explained(error)
    _report({"failed": reason, "code": code})


def _explained(error: BaseException) -> tuple[str, str]:
    """A code of `X-Stoker-Error` (`sdk/…/faults.py` lists them), and one line."""
    if isinstance(error, HandlerError):
        return "bad-handler", str(error)
    if isinstance(error, MissingProgram):
        return "missing-program", str(error)
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        return "import-error", f"the handler cannot be imported: {error.msg} ({where})"
    if isinstance(error, ImportError):
        why = f"{error}; if a package is missing, list it in requirements.txt"
        return "import-error", f"the handler cannot be imported: {why}"
    if isinstance(error, MemoryError):
        return "out-of-memory", "the handler ran out of memory while it started: raise limits.memory"
    return "cannot-start", f"the handler failed while it started: {type(error).__name__}: {error}"


def _report(status: dict[str, Any]) -> None:
    try:
        os.write(STATUS, json.dumps(status).encode()[:60000] + b"\n")
    except OSError:
        pass


def _serve(settings: Settings, stream: logs.LogStream) -> int:
    sys.setswitchinterval(_SWITCH_INTERVAL)
    loop = uvloop.new_event_loop()
    give_back_zeroes(loop)
    asyncio.set_event_loop(loop)
    before = len(sys.modules)
    begun = time.monotonic()
    runner = PythonRunner(settings, load_handler(settings.handler), loop)
    seconds = time.monotonic() - begun
    # The newest come first here: only they are looked at, since looking writes to an object's memory.
    imported = [*islice(reversed(sys.modules), len(sys.modules) - before)][::-1]
    loop.run_until_complete(_run(settings, runner, stream, {"seconds": seconds, "imports": imported}))
    return 0


async def _run(settings: Settings, runner: Runner, stream: logs.LogStream, report: dict[str, Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await runner.open()
    front = Front(settings, runner, stream)
    server = Server(front.handle, _LIMITS)
    listener = socket.socket(fileno=LISTENER)
    if listener.family == socket.AF_UNIX:
        accepting = await loop.create_unix_server(server, sock=listener, backlog=1024)
    else:
        accepting = await loop.create_server(server, sock=listener, backlog=1024)
    gc.freeze()
    gc.enable()
    _report({"ready": report})
    await stop.wait()
    await _drain(front, server, accepting, settings)
    await runner.close()


async def _drain(front: Front, server: Server, accepting: asyncio.Server, settings: Settings) -> None:
    """Contract section 8.4: unready first, serve on for a while, then no new connections, then wait for the calls."""
    front.ready = False
    if settings.drain_delay:
        await asyncio.sleep(settings.drain_delay)
    accepting.close()
    server.drain()
    deadline = time.monotonic() + settings.timeout
    while not (front.idle and not server.busy) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    front.stop()
