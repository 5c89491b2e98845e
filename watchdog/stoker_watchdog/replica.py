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

from stoker_watchdog import debugger, logs
from stoker_watchdog.confine import LISTENER, STATUS, confine, keep_descriptors, use_paths
from stoker_watchdog.failures import explained
from stoker_watchdog.front import Front
from stoker_watchdog.handler import load_handler
from stoker_watchdog.health import HealthWatch
from stoker_watchdog.hooks import InitFailed
from stoker_watchdog.native import run_native
from stoker_watchdog.python_runner import PythonRunner
from stoker_watchdog.runner import Runner
from stoker_watchdog.settings import Settings, read_settings
from stoker_watchdog.zeroes import give_back_zeroes
from stoker_wire.limits import Limits
from stoker_wire.server import Server

_LIMITS = Limits(idle=3600.0)  # proxies close idle connections; a replica never does, or calls would meet the close
_EQUIPMENT = frozenset(("ready_path", "jwt_auth"))
"""The variables that ask the front for more than most replicas need."""
_CLOSE_SECONDS = 4.0  # the provider kills five seconds after the longest call
_SWITCH_INTERVAL = 0.001  # a handler that computes in a thread gives the loop its turn five times sooner


def run_replica(settings_descriptor: int, listener: int, log: int, status: int, parent: int) -> NoReturn:
    """The main function of a fresh fork, of the fork server or of a zygote. Never returns."""
    code = 1
    gc.disable()  # until it is ready: a collection writes into many pages that it shares so far
    try:
        settings = read_settings(settings_descriptor)
        keep_descriptors(listener, log, status)
        if _more_than_a_handler(settings):
            from stoker_watchdog.modes import load  # as long as our own files can be read

            load(settings)
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


def _more_than_a_handler(settings: Settings) -> bool:
    return settings.mode not in ("python", "native") or not _EQUIPMENT.isdisjoint(settings.environment)


def _report_failure(error: BaseException) -> None:
    if isinstance(sys.stderr, logs.LogStream):
        shown = error.__cause__ if isinstance(error, InitFailed) and error.__cause__ else error
        sys.stderr.exception("-", "the replica failed", shown)
    code, reason = explained(error)
    _report({"failed": reason, "code": code})


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
    if settings.mode != "python":
        from stoker_watchdog.modes import make_runner

        return loop.run_until_complete(_run(settings, make_runner(settings, stream), stream, {}))
    if debugger.PORT in os.environ:
        debugger.start_debugger(f"{settings.code}/{settings.handler.partition('.')[0]}")
    before = len(sys.modules)
    begun = time.monotonic()
    runner = PythonRunner(settings, load_handler(settings.handler), loop)
    seconds = time.monotonic() - begun
    # The newest come first here: only they are looked at, since looking writes to an object's memory.
    imported = [*islice(reversed(sys.modules), len(sys.modules) - before)][::-1]
    return loop.run_until_complete(_run(settings, runner, stream, {"seconds": seconds, "imports": imported}))


async def _run(settings: Settings, runner: Runner, stream: logs.LogStream, report: dict[str, Any]) -> int:
    """Serve until told to end, or until the runner cannot go on; returns the exit code."""
    stop = _Stop()
    failures: list[str] = []

    def end(reason: str) -> None:
        failures.append(reason)
        _report({"failed": reason})
        stop.set()

    runner.watch(end)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.tell)
    if not await _open(runner, stop):
        return 0
    front = Front(settings, runner, stream)
    if not _EQUIPMENT.isdisjoint(settings.environment):
        from stoker_watchdog.modes import equip, replica_options

        await equip(front, replica_options(settings), stream)
    watching = await _watch_health(settings, runner, front) if runner.has_health else None
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
    if watching is not None:
        watching.cancel()
    await _drain(front, server, accepting, settings)
    await _close(runner, stream)
    return 1 if failures else 0


class _Stop(asyncio.Event):
    """Set when the replica is told to go, which breaks off what is `opening`."""

    opening: asyncio.Task[Any] | None = None

    def tell(self) -> None:
        self.set()
        if self.opening is not None:
            self.opening.cancel()


async def _open(runner: Runner, stop: _Stop) -> bool:
    """False when the replica is told to go before it is open. The same task closes, because some libraries ask that."""
    stop.opening = asyncio.current_task()
    try:
        await runner.open()
    except asyncio.CancelledError:
        return False
    stop.opening = None
    return True


async def _watch_health(settings: Settings, runner: Runner, front: Front) -> asyncio.Task[None]:
    def tell(reason: str) -> None:
        front.log.write(f"unhealthy: {reason}\n" if reason else "healthy again\n")
        _report({"health": reason})

    watch = HealthWatch(settings, runner, front, tell)
    await watch.first()
    return asyncio.get_running_loop().create_task(watch.run(), name="health")


async def _close(runner: Runner, stream: logs.LogStream) -> None:
    """What is left open then, the exit closes."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS) as limit:
            await runner.close()
    except Exception as error:
        if limit.expired():
            stream.write(f"`close` had not ended after {_CLOSE_SECONDS:g} s; the replica ends without it\n")
        else:
            stream.exception("-", "`close` failed", error)


async def _drain(front: Front, server: Server, accepting: asyncio.Server, settings: Settings) -> None:
    """Unready first, then no new connections, then wait for the calls."""
    front.ready = False
    accepting.close()
    server.drain()
    deadline = time.monotonic() + settings.timeout
    while not (front.idle and not server.busy) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    front.stop()
