"""Control's side of proxies and workers: sends them the route table, takes their wakes, sums their counters.

The table's truth is here. A change counts as done when every connected proxy has acknowledged it, or has been given up
as too slow: then no proxy will choose a replica that has left the table, and it may drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import chain, count
from typing import Any

import msgspec

from stoker_gateway.control.owner_limits import STEP_SECONDS, OwnerLimits, RateSettings
from stoker_gateway.counters import FunctionCounters, add_up
from stoker_gateway.endpoints import Endpoints, HostPolicy
from stoker_gateway.link import (
    MAX_LINE,
    Ack,
    Change,
    Count,
    Counted,
    Demand,
    Limits,
    Table,
    ToProxy,
    Wake,
    decode_for_control,
    encode,
)
from stoker_gateway.queue.counters import CallCounters, add_up_calls
from stoker_gateway.routes import Route
from stoker_sdk.names import FunctionKey, key_from_route

log = logging.getLogger("stoker.proxies")

_ACK_SECONDS = 2.0
_COUNT_SECONDS = 1.0


class _Connection:
    """One connected proxy: what it acknowledged last, and what it counted last."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.acknowledged = 0
        self.counted = Counted(0, [])
        self.question = 0
        self.demand: Mapping[str, int] | None = None  # None: it is no proxy, or has not said so yet
        self.limits: Limits | None = None

    def send(self, message: ToProxy) -> None:
        self.writer.write(encode(message))


class Proxies:
    """All connected proxies as one. Implements `Counters`; `route_changed` is the provider's listener.

    `endpoints` settles the public addresses, `limits` the owners' rates.
    """

    def __init__(
        self,
        wake: Callable[[FunctionKey], Coroutine[Any, Any, None]],
        endpoints: Endpoints | None = None,
        limits: OwnerLimits | None = None,
    ) -> None:
        self._wake = wake
        self.endpoints = endpoints or Endpoints(HostPolicy())
        self._limits = limits or OwnerLimits(RateSettings())
        self._dealing: asyncio.Task[None] | None = None
        self._routes: dict[str, Route] = {}
        self._version = 0
        self._connections: set[_Connection] = set()
        self._gone = Counted(0, [])
        self._questions = count(1)
        self._progress = asyncio.Condition()
        self._wakes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, path: str) -> None:
        """Accept proxies on a unix socket that only this user can open."""
        old_mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE)
        finally:
            os.umask(old_mask)
        self._dealing = asyncio.get_running_loop().create_task(self._deal(), name="owners' rates")

    async def route_changed(self, key: FunctionKey, route: Route | None) -> None:
        """Tell every proxy, and return when all have taken the change over."""
        text = str(key)
        if route is None:
            self._routes.pop(text, None)
            others = self.endpoints.remove(text)
        else:
            self._routes[text] = route
            others = self.endpoints.put(text, route.annotations, route.created_at)
        # Another function may have got or lost an address by this: it is told after whoever left it.
        for changed in [text, *sorted(others - {text})]:
            self._version += 1
            for connection in self._connections:
                connection.send(Change(self._version, changed, self._published(changed)))
        version = self._version
        try:
            async with asyncio.timeout(_ACK_SECONDS), self._progress:
                await self._progress.wait_for(
                    lambda: all(connection.acknowledged >= version for connection in self._connections)
                )
        except TimeoutError:
            log.warning("a proxy did not take over table version %d within %g s", version, _ACK_SECONDS)

    def _published(self, key: str) -> Route | None:
        """The route with the addresses that its function has."""
        route = self._routes.get(key)
        if route is None or not (held := self.endpoints.held(key)):
            return route
        return msgspec.structs.replace(route, endpoints=held)

    async def _deal(self) -> None:
        """Deal the owners' rates, for as long as there are proxies."""
        while True:
            await asyncio.sleep(STEP_SECONDS)
            self._limits.refresh()
            self._send_limits()

    def _send_limits(self) -> None:
        proxies = [connection for connection in self._connections if connection.demand is not None]
        dealt = self._limits.deal(connection.demand or {} for connection in proxies)
        for connection, limits in zip(proxies, dealt, strict=True):
            if limits != connection.limits:
                connection.limits = limits
                connection.send(limits)

    async def totals(self) -> list[FunctionCounters]:
        """The sum over all proxies, gone ones included. One that does not answer counts as it last did."""
        question = next(self._questions)
        for connection in self._connections:
            connection.send(Count(question))
        try:
            async with asyncio.timeout(_COUNT_SECONDS), self._progress:
                await self._progress.wait_for(
                    lambda: all(connection.question >= question for connection in self._connections)
                )
        except TimeoutError:
            log.warning("a proxy did not send its counters within %g s", _COUNT_SECONDS)
        return add_up(counted.functions for counted in self._counted())

    def calls(self) -> list[CallCounters]:
        """Of async calls, what is known since `totals` last asked."""
        return add_up_calls(counted.calls for counted in self._counted())

    def reconnects(self) -> dict[str, int]:
        """How often connections to the broker came back; as `calls`."""
        return _sums(counted.reconnects for counted in self._counted())

    def _counted(self) -> list[Counted]:
        return [self._gone, *(connection.counted for connection in self._connections)]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._dealing is not None:
            self._dealing.cancel()
        for connection in list(self._connections):
            connection.writer.close()
        for task in self._wakes:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        connection.send(Table(self._version, [route for key in self._routes if (route := self._published(key))]))
        self._connections.add(connection)
        try:
            while line := await reader.readline():
                await self._take(connection, line)
        except (OSError, ValueError) as error:
            log.warning("lost a proxy: %s", error)
        finally:
            self._connections.discard(connection)
            self._gone = _with_gone(self._gone, connection.counted)
            writer.close()
            async with self._progress:
                self._progress.notify_all()

    async def _take(self, connection: _Connection, line: bytes) -> None:
        message = decode_for_control(line)
        if isinstance(message, Wake):
            task = asyncio.get_running_loop().create_task(
                self._wake(key_from_route(message.key)), name=f"wake {message.key}"
            )
            self._wakes.add(task)
            task.add_done_callback(self._wakes.discard)
            return
        if isinstance(message, Ack):
            connection.acknowledged = message.version
        elif isinstance(message, Counted):
            connection.counted = message
            connection.question = max(connection.question, message.question)
        elif isinstance(message, Demand):
            begins, connection.demand = connection.demand is None, message.owners
            if begins:
                self._send_limits()
        async with self._progress:
            self._progress.notify_all()


def _with_gone(gone: Counted, last: Counted) -> Counted:
    """The sum with what a proxy or worker leaves that has ended: its running calls ended with it."""
    functions = add_up([gone.functions, last.functions])
    calls = add_up_calls([gone.calls, last.calls])
    for one in functions:
        one.inflight = 0
    for each in calls:
        each.running = 0
    return Counted(0, functions, calls, _sums([gone.reconnects, last.reconnects]))


def _sums(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, number in chain.from_iterable(part.items() for part in parts):
        sums[name] = sums.get(name, 0) + number
    return sums
