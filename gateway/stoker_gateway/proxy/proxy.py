"""A proxy: the route table, what comes in, and where it goes. It holds no truth and outlives control.

Everything that is not a call of a function goes to control, to the git pipeline or to the pages, by the same path: each
is one more entry of the table, with one target and no limit of time or number.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate

from stoker_gateway.counters import FunctionCounters
from stoker_gateway.proxy.call import Call
from stoker_gateway.proxy.enqueue import Enqueue
from stoker_gateway.proxy.entry import Entry
from stoker_gateway.proxy.guard import Inside, OwnerRates
from stoker_gateway.proxy.headers import CallIds, error_block
from stoker_gateway.proxy.hosts import Hosts, plain_host
from stoker_gateway.proxy.idempotent import take_keyed
from stoker_gateway.proxy.public import admits, handle_public
from stoker_gateway.routes import Endpoint, Route, Target
from stoker_sdk.names import DEFAULT_NAMESPACE
from stoker_wire.client import Pool
from stoker_wire.server import Exchange

_TICK = 0.1
_PREFIX = b"/function/"
_ASYNC_PREFIX = b"/async-function/"
_OF_PIPELINE = (
    *(b"/git/", b"/github/", b"/gitlab/"),
    *(b"/system/runs", b"/system/repositories", b"/system/owners", b"/system/seal-key"),
)
_OF_PAGES = (b"/ui/", b"/badge/")
_DEFAULT_SUFFIX = f".{DEFAULT_NAMESPACE}"


class Proxy:
    """Routes exchanges. `ask_wake` is called with a function's key when calls wait for its first replica."""

    def __init__(
        self,
        control_address: str,
        ask_wake: Callable[[str], None],
        *,
        max_body: int,
        max_waiting: int,
        control_wait: float = 10.0,
        pipeline_address: str = "",
        pages_address: str = "",
        pages_host: bytes = b"",
        enqueue: Enqueue | None = None,
        hosts: Hosts | None = None,
        inside: Inside | None = None,
    ) -> None:
        self.pool = Pool()
        self.call_ids = CallIds()
        self.max_body = max_body
        self.max_waiting = max_waiting
        self._ask_wake = ask_wake
        self._entries: dict[str, Entry] = {}
        self._by_token: dict[bytes, Entry] = {}
        self._retired: dict[str, Entry] = {}
        self._control = _own_entry("the control API", control_address)
        self._pipeline = _own_entry("the git pipeline", pipeline_address) if pipeline_address else self._control
        self._pages = _own_entry("the pages", pages_address) if pages_address else self._control
        self._pages_host = pages_host
        self._control_wait = control_wait
        self.enqueue = enqueue or Enqueue(None)
        self._hosts = hosts or Hosts()
        self.inside = inside or Inside()
        self.rates = OwnerRates()
        self._loop = asyncio.get_running_loop()
        self._tick()

    def handle(self, exchange: Exchange) -> None:
        """Where every exchange of this proxy begins."""
        target = exchange.target
        if self._pages_host and plain_host(exchange.host) == self._pages_host:
            Call(self, exchange, self._pages, target).begin()
        elif self._hosts.in_use and exchange.peer and (host := self._hosts.find(exchange.host)) is not None:
            handle_public(self, exchange, host)
        elif target.startswith(_PREFIX):
            name, path = _split(target[10:])
            entry = self._by_token.get(name)
            if entry is None:
                self.refuse_unknown(exchange, name)
            elif (not entry.guarded or admits(self, exchange, entry, name)) and not (
                entry.idempotent and take_keyed(self.enqueue, self, exchange, entry, path)
            ):
                Call(self, exchange, entry, path).begin()
        elif target.startswith(_ASYNC_PREFIX):
            self._handle_async(exchange, target[16:])
        elif target.startswith(_OF_PIPELINE):
            Call(self, exchange, self._pipeline, target).begin()
        elif target.startswith(_OF_PAGES):
            Call(self, exchange, self._pages, target).begin()
        else:
            Call(self, exchange, self._control, target).begin()

    def is_own(self, entry: Entry) -> bool:
        """Whether this is a part of the platform, not a function."""
        return entry is self._control or entry is self._pipeline or entry is self._pages

    def _handle_async(self, exchange: Exchange, rest: bytes) -> None:
        if exchange.method == b"DELETE":
            # The contract's way to cancel a call (section 5.5).
            Call(self, exchange, self._control, b"/system/calls/" + rest).begin()
            return
        name, _ = _split(rest)
        entry = self._by_token.get(name)
        if entry is None:
            self.refuse_unknown(exchange, name)
        elif not entry.guarded or admits(self, exchange, entry, name):
            self.enqueue.begin(self, exchange, entry.key, rest[len(name) :])

    def refuse_unknown(self, exchange: Exchange, name: bytes) -> None:
        reason = b"function %b is not deployed here; `stoker list` shows what is" % (name[:200] or b"with no name")
        self.refuse(exchange, 404, "unknown-function", reason)

    def refuse(
        self, exchange: Exchange, status: int, code: str, reason: bytes, lines: bytes = b"", *, retry: int = 0
    ) -> None:
        """The client's fault. `lines` are further headers; `retry` is after how many seconds it may come again."""
        exchange.respond(status, error_block(self, "client", code, b"", retry=retry) + lines, reason + b"\n")

    def largest_body(self, exchange: Exchange) -> int:
        """Bytes that its body may have. What a worker brings was accepted under the limit of async calls."""
        return self.max_body if exchange.peer else max(self.max_body, self.enqueue.limit)

    # The table

    def replace_table(self, routes: list[Route]) -> None:
        keys = {route.key for route in routes}
        for key in [key for key in self._entries if key not in keys]:
            self.remove(key)
        for route in routes:
            self.put(route, is_new=False)

    def put(self, route: Route, *, is_new: bool = True) -> None:
        entry = self._entries.get(route.key)
        if entry is None:
            entry = self._entries[route.key] = (
                self._retired.pop(route.key) if route.key in self._retired else Entry(route.key, is_new=is_new)
            )
            entry.removed = entry.woken = False
            for token in _tokens(route.key):
                self._by_token[token] = entry
        for address in entry.update(route):
            self.pool.close_address(address)
        self._mount(entry, route.endpoints)
        if entry.waiting:
            self.serve_waiting(entry)

    def remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for token in _tokens(key):
            self._by_token.pop(token, None)
        entry.removed = True
        self._mount(entry, [])
        for target in entry.targets:
            self.pool.close_address(target.address)
        entry.targets = []
        waiting, entry.waiting = entry.waiting, deque()
        for call in waiting:
            call.gone()
        if entry.started:
            self._retired[key] = entry  # its calls still run, and its counters go on if it comes again

    def _mount(self, entry: Entry, endpoints: list[Endpoint]) -> None:
        for endpoint in entry.endpoints:
            if endpoint not in endpoints:
                self._hosts.remove(endpoint, entry)
        for endpoint in endpoints:
            self._hosts.put(endpoint, entry)
        entry.endpoints = endpoints

    # Waiting calls

    def wake(self, entry: Entry) -> None:
        """Calls wait. One wake a function is asked for, until the table answers it."""
        if not entry.woken and not entry.targets and not self.is_own(entry):
            entry.woken = True
            self._ask_wake(entry.key)

    def serve_waiting(self, entry: Entry) -> None:
        """Send waiting calls on, in the order in which they came, as far as there is room."""
        if not entry.serving:  # a call that ends in here would come back for the next
            entry.serving = True
            try:
                self._serve_in_order(entry)
            finally:
                entry.serving = False

    def _serve_in_order(self, entry: Entry) -> None:
        waiting = entry.waiting
        while waiting:
            if entry.failure and not entry.targets:
                waiting.popleft().refuse(entry.failure)
            elif (target := entry.choose(self.now)) is not None:
                waiting.popleft().proceed(target)
            else:
                self.wake(entry)
                return

    def wake_again(self) -> None:
        """Control is back and has forgotten what we asked."""
        for entry in self._entries.values():
            entry.woken = False
            if entry.waiting:
                self.serve_waiting(entry)

    # Time

    def _tick(self) -> None:
        self.now = time.monotonic()
        wall = time.time()
        self._wall_offset = time.time_ns() - time.monotonic_ns()
        self.date_line = f"Date: {formatdate(wall, usegmt=True)}\r\n".encode()
        self._expire_waits(self._control)
        self._expire_waits(self._pipeline)
        self._expire_waits(self._pages)
        for entry in [*self._entries.values(), *self._retired.values()]:
            if entry.calls or entry.streams or entry.waiting or entry.bereaved:
                self._check(entry)
        self._timer = self._loop.call_later(_TICK, self._tick)

    def wall_nanoseconds(self, monotonic: float) -> int:
        """The Unix time in nanoseconds of a moment of the monotonic clock, so that a call need not read both."""
        return int(monotonic * 1e9) + self._wall_offset

    def _check(self, entry: Entry) -> None:
        while entry.calls:
            call, deadline = next(iter(entry.calls.items()))
            if deadline > self.now:
                break
            call.expire()
        if entry.shortened:
            for call in [c for c, deadline in entry.calls.items() if deadline <= self.now]:
                call.expire()
        for call in [c for c, since in entry.streams.items() if self.now - since > entry.timeout]:
            call.expire()
        for call in [c for c, until in (entry.bereaved or {}).items() if until <= self.now]:
            call.unexplained()
        if entry.waiting:
            self.serve_waiting(entry)

    def _expire_waits(self, own: Entry) -> None:
        waiting = own.waiting
        while waiting and self.now - waiting[0].begun > self._control_wait:
            waiting.popleft().refuse("it does not answer; its log says why")
        if waiting:
            self.serve_waiting(own)

    # Counters and end

    def counters(self) -> list[FunctionCounters]:
        """Every function's counters since this proxy began, removed ones included."""
        return [entry.counters() for entry in [*self._retired.values(), *self._entries.values()] if entry.started]

    @property
    def counted(self) -> int:
        """Changes with every call that begins or ends."""
        return sum(entry.started * 2 - entry.inflight for entry in self._entries.values())

    def close(self) -> None:
        self._timer.cancel()
        self.pool.close()


def _own_entry(name: str, address: str) -> Entry:
    """A part of the platform: one target, and no limit of time or number."""
    entry = Entry(name)
    entry.update(Route("", math.inf, 0, [Target(name, address)]))
    return entry


def _split(rest: bytes) -> tuple[bytes, bytes]:
    """The function's name, and the path with its query, of what follows the route's prefix."""
    name, slash, path = rest.partition(b"/")
    if b"?" in name:
        name, _, query = rest.partition(b"?")
        return name, b"/?" + query
    return name, slash + path or b"/"


def _tokens(key: str) -> list[bytes]:
    """How a route may name the function: with its namespace always, without it in the default one."""
    tokens = [key.encode()]
    if key.endswith(_DEFAULT_SUFFIX):
        tokens.append(key.removesuffix(_DEFAULT_SUFFIX).encode())
    return tokens
