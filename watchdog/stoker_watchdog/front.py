"""The front of a replica: health, readiness, metrics, the limit of calls at once, the timeout, draining.

Contract sections 8.4 and 8.5. `max_inflight` refuses what is over the limit, as the contract says; `concurrency`, ours,
lets it wait its turn here, because several proxies may send to one replica.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from stoker_watchdog.call import Call
from stoker_watchdog.logs import LogStream
from stoker_watchdog.metrics import Metrics
from stoker_watchdog.runner import Runner
from stoker_watchdog.settings import Settings
from stoker_wire.server import Exchange

_TICK = 0.1
_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"
_REFUSED = (
    b"Content-Type: text/plain\r\nX-OpenFaaS-Internal: faas-middleware\r\nX-Stoker-Error: function; max-inflight\r\n"
)


class Guard(Protocol):
    """Decides whether a request may become a call."""

    def admit(self, exchange: Exchange, go_on: Callable[[Exchange], None]) -> None:
        """Answer the exchange with a refusal, or call `go_on` with it, now or later."""


class Front:
    """Routes the exchanges of one replica and keeps its calls within their limits.

    What few replicas have is set after it was made: `ready_path`, a path of the function's own that answers
    `/_/ready`; `lock_path`, a file without which it is not healthy; `guard`; `request_log`, told of each call's end;
    `hold_back`, before the runner is open.
    """

    def __init__(self, settings: Settings, runner: Runner, log: LogStream) -> None:
        self.settings = settings
        self.log = log
        self.loop = asyncio.get_running_loop()
        self._runner = runner
        self.metrics = Metrics()
        self.ready = True
        self.ready_path = b""
        self.lock_path = ""
        self.guard: Guard | None = None
        self.request_log: Callable[[Exchange, int, float, int], None] | None = None
        self._opened = True
        self._probes: set[Exchange] = set()
        self.unhealthy = ""
        self.alive = True
        self._running = 0
        self._waiting: deque[Call] = deque()
        # Insertion order is deadline order: all calls have the same timeout.
        self._calls: dict[Call, float] = {}
        self._timer = self.loop.call_later(_TICK, self._tick)

    def handle(self, exchange: Exchange) -> None:
        """The handler of the engine's server."""
        if exchange.target.startswith(b"/_/") and self._own_page(exchange):
            return
        if self.guard is not None:
            self.guard.admit(exchange, self._begin)
        else:
            self._begin(exchange)

    def _begin(self, exchange: Exchange) -> None:
        call = self._runner.call(self, exchange)
        exchange.owner = call
        if self.settings.timeout:
            self._calls[call] = call.begun + self.settings.timeout
        call.begin()

    def _own_page(self, exchange: Exchange) -> bool:
        path = exchange.target
        if path not in (b"/_/health", b"/_/ready", b"/_/metrics"):
            return False
        if exchange.method != b"GET":
            exchange.respond(405, _PLAIN, b"")
        elif path == b"/_/metrics":
            exchange.respond(200, self.metrics.CONTENT_TYPE, self.render_metrics())
        else:
            self._answer_probe(exchange, path)
        return True

    def _answer_probe(self, exchange: Exchange, path: bytes) -> None:
        if not self.ready or (self.lock_path and not os.path.exists(self.lock_path)):
            exchange.respond(503, _PLAIN, b"draining\n")
        elif path == b"/_/ready" and not self._opened:
            exchange.respond(503, _PLAIN, b"starting\n")
        elif self.unhealthy and (not self.alive or (path == b"/_/ready" and not self.ready_path)):
            exchange.respond(503, _PLAIN, f"unhealthy: {self.unhealthy}\n".encode())
        elif path == b"/_/ready" and self._full:
            exchange.respond(429, _PLAIN, b"at max_inflight\n")
        elif path == b"/_/ready" and self.ready_path:
            exchange.target = self.ready_path
            self._probes.add(exchange)
            self._begin(exchange)
        else:
            exchange.respond(200, _PLAIN, b"OK")

    @property
    def _full(self) -> bool:
        return 0 < self.settings.max_inflight <= self._running

    # The limit

    def admit(self, call: Call) -> None:
        """The call is complete: run it, let it wait, or refuse it."""
        if self._probes and call.exchange in self._probes:
            call.run()
        elif self._full:
            self._calls.pop(call, None)
            most = self.settings.max_inflight
            call.refuse(429, _REFUSED, f"Concurrent request limit exceeded. Max concurrent requests: {most}\n")
        elif 0 < self.settings.concurrency <= self._running or not self._opened:
            self._waiting.append(call)
        else:
            self._running += 1
            call.run()

    def done(self, call: Call) -> None:
        """The call needs nothing any more. One that waited gives up its place, one that ran gives it to the next."""
        self._calls.pop(call, None)
        if self._probes and call.exchange in self._probes:
            self._probes.discard(call.exchange)
            return
        if call in self._waiting:
            self._waiting.remove(call)
            return
        if not call.runs:
            return
        self._running -= 1
        if self._waiting and self._opened:
            self._running += 1
            self._waiting.popleft().run()

    def hold_back(self) -> None:
        """Not ready yet: calls wait until `open_up`."""
        self._opened = False

    def open_up(self) -> None:
        self._opened = True
        most = self.settings.concurrency or self.settings.max_inflight
        while self._waiting and not 0 < most <= self._running:
            self._running += 1
            self._waiting.popleft().run()

    def unbound(self, call: Call) -> None:
        """The timeout does not apply to this call."""
        self._calls.pop(call, None)

    def count(self, exchange: Exchange, status: int, begun: float, size: int = -1) -> None:
        """One call has got its answer, of `size` bytes where that is known."""
        if self._probes and exchange in self._probes:
            return
        seconds = monotonic() - begun
        self.metrics.count(exchange.method, status, seconds)
        if self.request_log is not None:
            self.request_log(exchange, status, seconds, size)

    def render_metrics(self) -> bytes:
        return self.metrics.render(self._running)

    # Time

    def _tick(self) -> None:
        now = monotonic()
        while self._calls:
            call, deadline = next(iter(self._calls.items()))
            if deadline > now:
                break
            del self._calls[call]
            call.expire()
        self._timer = self.loop.call_later(_TICK, self._tick)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def stop(self) -> None:
        self._timer.cancel()
