"""A watchdog that is a process of its own, as in a container: its ports, its lock file, its drain by the clock.

Contract section 8.4. It listens before the function is ready, so that liveness can be seen; readiness says when calls
are served, and calls that come before that wait.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import dataclass, field

from stoker_watchdog.front import Front
from stoker_watchdog.health import HealthWatch
from stoker_watchdog.lines import clock
from stoker_watchdog.lockfile import lock_path, remove_lock, write_lock
from stoker_watchdog.logs import LogStream
from stoker_watchdog.metrics import Metrics
from stoker_watchdog.modes import equip, runner_of
from stoker_watchdog.options import Options
from stoker_watchdog.orphans import has_ended, own_children
from stoker_watchdog.process import LIVING
from stoker_watchdog.release import release
from stoker_watchdog.request_log import RequestLog
from stoker_watchdog.runner import Runner
from stoker_watchdog.settings import Settings
from stoker_wire.limits import Limits
from stoker_wire.server import Exchange, Handler, Server

_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"
_MAX_IDLE = 3600.0
_REAP_SECONDS = 1.0


def settings_of(options: Options) -> Settings:
    return Settings(
        id=socket.gethostname(),
        function=options.name,
        namespace=options.namespace,
        mode=options.mode,
        handler=options.handler,
        command=list(options.command),
        timeout=options.exec_timeout,
        concurrency=options.concurrency,
        max_inflight=options.max_inflight,
        threads=options.threads,
        secrets=options.secrets,
        connections=options.connections,
        health_period=options.health_period,
        health_timeout=options.health_timeout,
        health_failures=options.health_failures,
        health_successes=options.health_successes,
        replace_after=options.replace_after,
    )


@dataclass
class Ending:
    """Why the watchdog ends: a signal, or a failure with its reason. A second signal means at once."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""

    def ask(self) -> None:
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.hurried.set()
        self.asked.set()


class Watchdog:
    """The listening sockets, the front and the lock file of one function."""

    def __init__(self, options: Options, log: LogStream) -> None:
        self._options = options
        self._log = log
        self._lock = "" if options.suppress_lock else lock_path()
        self._ending = Ending()

    async def run(self) -> int:
        """Serve until a signal, or a failure; returns the exit code. Raises what the start raises."""
        runner = self._runner()
        runner.watch(self._ending.fail)
        self._listen_to_signals()
        front = Front(settings_of(self._options), runner, self._log)
        front.hold_back()
        front.request_log = RequestLog(self._options, self._log)
        await equip(front, self._options, self._log)
        server = Server(front.handle, self._limits())
        accepting = await self._listen(server, self._options.port)
        metrics = await self._listen(Server(_metrics_page(front)), self._options.metrics_port)
        self._announce(accepting, metrics)
        self._write_lock(front)
        opening = asyncio.get_running_loop().create_task(self._open(runner, front), name="open the runner")
        await self._ending.asked.wait()
        await self._drain(front, server, accepting)
        opening.cancel()
        await runner.close()
        metrics.close()
        if self._ending.failure:
            self._say(self._ending.failure)
        return 1 if self._ending.failure else 0

    def _runner(self) -> Runner:
        options = self._options
        if options.mode != "python":
            if os.getpid() == 1:
                _reap_adopted(asyncio.get_running_loop())
            return runner_of(options, self._log)
        from stoker_watchdog.handler import load_handler
        from stoker_watchdog.python_runner import PythonRunner

        return PythonRunner(settings_of(options), load_handler(options.handler), asyncio.get_running_loop())

    def _limits(self) -> Limits:
        read = self._options.read_timeout or _MAX_IDLE
        write = self._options.write_timeout
        return Limits(idle=_MAX_IDLE, header_wait=read, body_wait=read, stalled_write=write)

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ending.ask)

    async def _listen(self, server: Server, port: int) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(server, None, port, backlog=1024)

    async def _open(self, runner: Runner, front: Front) -> None:
        """And then, until it is cancelled, look after the health that the probes of the container are told."""
        try:
            await runner.open()
        except Exception as error:
            self._ending.fail(str(error) or type(error).__name__)
            return
        watch = HealthWatch(front.settings, runner, front, self._tell_health) if runner.has_health else None
        if watch is not None:
            await watch.first()
        front.open_up()
        if watch is not None:
            await watch.run()

    def _tell_health(self, reason: str) -> None:
        self._say(f"unhealthy: {reason}" if reason else "healthy again")

    def _write_lock(self, front: Front) -> None:
        if self._lock:
            self._say(f"Writing lock-file to: {self._lock}")
            write_lock(self._lock)
            front.lock_path = self._lock

    async def _drain(self, front: Front, server: Server, accepting: asyncio.Server) -> None:
        """Unready and no lock file first; serve on for a while; no new connections; wait for the calls."""
        options = self._options
        front.ready = False
        remove_lock(self._lock)
        if not self._ending.hurried.is_set():
            self._say(f"SIGTERM: unready, and no new connections in {options.healthcheck_interval:g}s")
            await _wait(self._ending.hurried, options.healthcheck_interval)
        self._say(f"No new connections; waiting for {server.busy} calls, at most {options.write_timeout:g}s")
        accepting.close()
        server.drain()
        deadline = asyncio.get_running_loop().time() + options.write_timeout
        while not (front.idle and not server.busy) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        front.stop()

    def _announce(self, accepting: asyncio.Server, metrics: asyncio.Server) -> None:
        options = self._options
        self._say(f"Version: {release()} (stoker), mode: {options.mode}")
        timeouts = f"read: {options.read_timeout:g}s write: {options.write_timeout:g}s hard: {options.exec_timeout:g}s"
        self._say(f"Timeouts: {timeouts} health: {options.healthcheck_interval:g}s")
        self._say(f"Listening on port: {_port_of(accepting)}, metrics on port: {_port_of(metrics)}")

    def _say(self, text: str) -> None:
        self._log.lines("-", [f"{clock()} {text}"])


def _port_of(listening: asyncio.Server) -> int:
    port: int = listening.sockets[0].getsockname()[1]
    return port


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _metrics_page(front: Front) -> Handler:
    def answer(exchange: Exchange) -> None:
        if exchange.target.partition(b"?")[0] != b"/metrics":
            exchange.respond(404, _PLAIN, b"metrics are at /metrics\n")
        elif exchange.method not in (b"GET", b"HEAD"):
            exchange.respond(405, _PLAIN, b"")
        else:
            exchange.respond(200, Metrics.CONTENT_TYPE, front.render_metrics())

    return answer


def _reap_adopted(loop: asyncio.AbstractEventLoop) -> None:
    """As process 1 we are the parent of all that lost theirs; processes of calls are waited for where they run.

    By the clock, because uvloop keeps SIGCHLD to itself.
    """
    for pid in own_children():
        if pid not in LIVING:
            has_ended(pid)
    loop.call_later(_REAP_SECONDS, _reap_adopted, loop)
