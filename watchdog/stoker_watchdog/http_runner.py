"""Mode `http`: one long-lived program, which speaks HTTP; a call is a request to it (contract sections 8.2 and 4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stoker_watchdog.child import Child
from stoker_watchdog.front import Front
from stoker_watchdog.http_call import HttpCall, Probe
from stoker_watchdog.logs import LogStream
from stoker_watchdog.options import Options
from stoker_wire.client import Pool
from stoker_wire.limits import Limits
from stoker_wire.server import Exchange

_LIMITS = Limits(pooled_idle=1.0)
"""Idle connections are closed before the shortest keep-alive of common servers (2 s) ends on the other side."""
_LISTEN_SECONDS = 50.0
_PROBE_SECONDS = 5.0


class HttpRunner:
    """Implements `Runner`. `child` is the program, `pool` the connections to it."""

    pool: Pool

    def __init__(self, options: Options, log: LogStream) -> None:
        self.options = options
        self.child = Child(options, log)
        self.address = ""
        self.base = b""
        self.listened = False
        self.has_health = bool(options.ready_path)  # without it, `watch` tells all there is to tell

    async def open(self) -> None:
        """Raises `MissingProgram`, `ChildError`."""
        self.pool = Pool(_LIMITS)
        self.child.start()
        self.address = self.child.upstream.address
        self.base = self.child.upstream.base.encode()
        await self.child.until_it_listens(_LISTEN_SECONDS)
        self.listened = True

    def watch(self, end: Callable[[str], None]) -> None:
        self.child.ended = lambda reason: end(reason) if self.listened else None

    def call(self, front: Front, exchange: Exchange) -> HttpCall:
        return HttpCall(self, front, exchange)

    async def health(self) -> str:
        """With `ready_path`, the program's own word; otherwise whether it runs."""
        if not self.child.alive:
            return f"the program {self.child.name!r} has ended"
        if not self.options.ready_path:
            return ""
        probe = Probe(self, self.options.ready_path)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                return await probe.ask()
        except TimeoutError:
            return f"ready_path {self.options.ready_path} did not answer within {_PROBE_SECONDS:g} s"
        finally:
            probe.stop()

    async def close(self) -> None:
        await self.child.close()
        self.pool.close()
