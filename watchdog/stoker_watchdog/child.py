"""The one program of a replica in mode `http`: started once, watched, told to end at the end.

Its output goes to the log. `upstream_url` says where it listens; with port 0 a free port is chosen here, and the
program is told it as `PORT`, so that several replicas on one machine do not meet.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from stoker_watchdog.children import exit_text
from stoker_watchdog.lines import OutputLines
from stoker_watchdog.logs import LogStream
from stoker_watchdog.options import Options
from stoker_watchdog.process import Process
from stoker_watchdog.programs import Program
from stoker_watchdog.readiness import Readiness

_POLL_SECONDS = 0.01
_TERM_SECONDS = 4.0
_KILL_SECONDS = 1.0


class ChildError(Exception):
    """The program of mode http cannot serve; the message says why, and what to change."""


@dataclass(frozen=True)
class Upstream:
    """Where the program listens. `base` is what stands before each request's path, mostly nothing."""

    host: str
    port: int
    base: str

    @property
    def address(self) -> str:
        """As `wire.client` takes it."""
        return f"tcp:{self.host}:{self.port}"


def parse_upstream(url: str) -> Upstream:
    """Raises `ChildError` for what is no address of a server on this machine or elsewhere."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ChildError(f"upstream_url is {url[:100]!r}: {error}") from None
    if parts.scheme != "http" or not parts.hostname or parts.query or not url.isascii():
        raise ChildError(f"upstream_url is {url[:100]!r}: write http://127.0.0.1:PORT, with port 0 for a free one")
    return Upstream(parts.hostname, 80 if port is None else port, parts.path.rstrip("/"))


def choose_port(upstream: Upstream) -> Upstream:
    """Give port 0 a number that nobody has now. Raises `ChildError` when a fixed one is taken by somebody else."""
    family = socket.AF_INET6 if ":" in upstream.host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do, so that connections of an earlier one that wind down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((upstream.host, upstream.port))
        except OSError as error:
            if upstream.port and error.errno == 98:
                raise ChildError(
                    f"port {upstream.port} of upstream_url is taken, by another replica perhaps: "
                    "use port 0 there, and let the program listen on the port in PORT"
                ) from None
            return upstream  # not an address of this machine: the program must know what it does
        return Upstream(upstream.host, probe.getsockname()[1], upstream.base)


class Child:
    """The process. `ended` is called when it ends unasked, with the reason."""

    def __init__(self, options: Options, log: LogStream) -> None:
        self._log = log
        self._lines = [OutputLines(options, log, "-", stream) for stream in ("stdout", "stderr")]
        self._command = options.command
        self._process: Process | None = None
        self._over = asyncio.Event()
        self._closing = False
        self._how = ""
        self.upstream = parse_upstream(options.upstream_url)
        self.ended: Callable[[str], None] | None = None

    def __repr__(self) -> str:
        return f"<Child {self._command[0]} {self._process}>"

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def name(self) -> str:
        return self._command[0]

    def start(self) -> None:
        """Raises `MissingProgram`, `ChildError`, OSError."""
        self.upstream = choose_port(self.upstream)
        port = str(self.upstream.port)
        program = Program(self._command, {"http_port": port} | dict(os.environ) | {"PORT": port})
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = program.start(null, out_end, err_end, program.environment)
        finally:
            for descriptor in (null, out_end, err_end):
                os.close(descriptor)
        self._process = Process(Readiness(asyncio.get_running_loop()), pid, out, err, self)

    async def until_it_listens(self, seconds: float) -> None:
        """Wait until the port accepts; 0 seconds is no limit. Raises `ChildError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds if seconds else float("inf")
        while not await self._listens():
            if not self.alive:
                raise ChildError(f"the program {self.name!r} ended before it listened: {self._how}")
            if loop.time() > deadline:
                raise ChildError(
                    f"the program {self.name!r} did not listen on port {self.upstream.port} within {seconds:g} s: "
                    "correct upstream_url, or let it listen on the port in PORT"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.upstream.host, self.upstream.port)
        except OSError:
            return False
        writer.close()
        return self.alive

    async def close(self) -> None:
        """TERM to the program alone, which may have children to look after; KILL to its group when it does not end."""
        self._closing = True
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_TERM_SECONDS):
                await self._over.wait()
        except TimeoutError:
            self._log.lines(
                "-", [f"the program {self.name!r} did not end within {_TERM_SECONDS:g} s of SIGTERM: killed"]
            )
            self._process.kill()
            async with asyncio.timeout(_KILL_SECONDS):
                await self._over.wait()

    # Owner of the process

    def output(self, data: bytes) -> None:
        self._lines[0].feed(data)

    def error_output(self, data: bytes) -> None:
        self._lines[1].feed(data)

    def exited(self, status: int) -> None:
        self._process = None
        self._how = exit_text(status)
        for lines in self._lines:
            lines.close()
        self._over.set()
        if self.ended is not None and not self._closing:
            self.ended(f"the program {self.name!r} ended: {self._how}")
