"""The front of a replica: health, readiness, metrics, the limit of calls at once, the timeout, draining.

Contract sections 8.4 and 8.5. `max_inflight` refuses what is over the limit, as the contract says; `concurrency`, ours,
lets it wait its turn here, because several proxies may send to one replica.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

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


class Front:
    """Routes the exchanges of one replica and keeps its calls within their limits."""

    def __init__(self, settings: Settings, runner: Runner, log: LogStream) -> None:
        self.settings = settings
        self.log = log
        self.loop = asyncio.get_running_loop()
        self._runner = runner
        self.metrics = Metrics()
        self.ready = True
        self._running = 0
        self._waiting: deque[Call] = deque()
        # Insertion order is deadline order: all calls have the same timeout.
        self._calls: dict[Call, float] = {}
        self._timer = self.loop.call_later(_TICK, self._tick)

    def handle(self, exchange: Exchange) -> None:
        """The handler of the engine's server."""
        if exchange.target.startswith(b"/_/") and self._own_page(exchange):
            return
        call = self._runner.call(self, exchange)
        exchange.owner = call
        self._calls[call] = call.begun + self.settings.timeout
        call.begin()

    def _own_page(self, exchange: Exchange) -> bool:
        path = exchange.target
        if path not in (b"/_/health", b"/_/ready", b"/_/metrics"):
            return False
        if exchange.method != b"GET":
            exchange.respond(405, _PLAIN, b"")
        elif path == b"/_/metrics":
            exchange.respond(200, self.metrics.CONTENT_TYPE, self.metrics.render(self._running))
        else:
            self._answer_probe(exchange, path)
        return True

    def _answer_probe(self, exchange: Exchange, path: bytes) -> None:
        if not self.ready:
            exchange.respond(503, _PLAIN, b"draining\n")
        elif path == b"/_/ready" and self._full:
            exchange.respond(429, _PLAIN, b"at max_inflight\n")
        else:
            exchange.respond(200, _PLAIN, b"OK")

    @property
    def _full(self) -> bool:
        return 0 < self.settings.max_inflight <= self._running

    # The limit

    def admit(self, call: Call) -> None:
        """The call is complete: run it, let it wait, or refuse it."""
        if self._full:
            self._calls.pop(call, None)
            most = self.settings.max_inflight
            call.refuse(429, _REFUSED, f"Concurrent request limit exceeded. Max concurrent requests: {most}\n")
        elif 0 < self.settings.concurrency <= self._running:
            self._waiting.append(call)
        else:
            self._running += 1
            call.run()

    def done(self, call: Call) -> None:
        """The call needs nothing any more. One that waited gives up its place, one that ran gives it to the next."""
        self._calls.pop(call, None)
        if call in self._waiting:
            self._waiting.remove(call)
            return
        if not call.runs:
            return
        self._running -= 1
        if self._waiting:
            self._running += 1
            self._waiting.popleft().run()

    def count(self, exchange: Exchange, status: int, begun: float) -> None:
        self.metrics.count(exchange.method, status, monotonic() - begun)

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
