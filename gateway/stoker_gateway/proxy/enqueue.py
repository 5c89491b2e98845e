"""`POST /async-function/NAME[/rest]`: the request is stored, and answered 202 when the broker says so (contract 5.1).

Here is what a proxy's async calls share; `enqueuing.py` has the life of one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stoker_gateway.proxy.enqueuing import Enqueuing
from stoker_gateway.proxy.uploads import Uploads
from stoker_gateway.queue.counters import CallCounting
from stoker_gateway.queue.key_store import KeyStore
from stoker_gateway.queue.link import Link
from stoker_gateway.queue.publisher import Publisher
from stoker_gateway.queue.room import Room
from stoker_gateway.queue.stored import (
    MAX_BODY,
)
from stoker_gateway.queue.subjects import CALLS, OUTCOMES, bell_subject, by_id
from stoker_sdk.broker.settings import BrokerSettings, read_settings
from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.names import key_from_route
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from nats.aio.client import Client

    from stoker_gateway.proxy.idempotent import IdempotentCall
    from stoker_gateway.proxy.proxy import Proxy

log = logging.getLogger("stoker.proxy")

DEADLINE: Final = 5.0
"""Seconds that a caller waits for the broker, its restart included."""
_BELL_SECONDS: Final = 1.0
_EXPLAIN_SECONDS: Final = 1.0
WINDOW: Final = 86400.0
"""Seconds for which an `Idempotency-Key` is tied to its call."""


class Enqueue:
    """A proxy's way to the broker: connected when the first call comes, since many platforms never see one.

    `broker_file` has the broker's settings; None: there is no broker. `folder` is where a broker of ours keeps all.
    `running` are the synchronous calls with a key, whose answers are to be stored though their clients may have gone.
    """

    def __init__(
        self,
        broker_file: Path | None,
        *,
        name: str = "proxy",
        limit: int = MAX_BODY,
        window: float = WINDOW,
        folder: Path | None = None,
    ) -> None:
        self.limit = limit
        self.window = window
        self.room = Room(folder)
        self.publisher: Publisher | None = None
        self.client: Client | None = None
        self.waiting = 0
        self.running: set[IdempotentCall] = set()
        self.counting = CallCounting()
        self._connections = 0
        self._link: Link | None = None
        self.uploads = Uploads(lambda: self.client)
        self._file = broker_file
        self._name = name
        self._rung: dict[str, float] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[str] | None = None

    def begin(self, proxy: Proxy, exchange: Exchange, key: str, rest: bytes) -> None:
        """Take the exchange: gather its body, store the call, answer. `rest` is path and query behind the name."""
        Enqueuing(self, proxy, exchange, key, rest).begin()

    @property
    def has_broker(self) -> bool:
        return self._file is not None

    async def keys(self, key: str) -> KeyStore:
        """The idempotency keys of the function. Raises `Unavailable`."""
        self.connect()
        deadline = time.monotonic() + DEADLINE
        while self.client is None or not self.client.is_connected:
            if time.monotonic() > deadline:
                raise Unavailable("the broker does not answer: try again later")
            await asyncio.sleep(0.05)
        return KeyStore(self.client, key_from_route(key), self.window)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run it, whoever waits for it or not."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connect(self) -> None:
        """To the broker, unless that was done before."""
        if self.publisher is None:
            assert self._file is not None
            settings = read_settings(self._file)
            self._link = Link(settings, f"stoker {self._name}: calls")
            self._link.back.append(self._connected)
            self.publisher = Publisher(self._link, deadline=DEADLINE)
            self._connecting = asyncio.get_running_loop().create_task(self._open(settings), name="broker")

    async def _open(self, settings: BrokerSettings) -> None:
        from stoker_sdk.broker.connection import connect

        try:
            self.client = await connect(settings, f"stoker {self._name}")
        except (OSError, ValueError, StokerError) as error:
            log.error("no connection to the broker: %s", error)

    def _connected(self) -> None:
        self._connections += 1

    @property
    def reconnects(self) -> int:
        """How often the link came back."""
        return max(0, self._connections - 1)

    def ring(self, key: str, now: float) -> None:
        """Now and then tell the workers that this function has calls."""
        if self.publisher is not None and now - self._rung.get(key, -_BELL_SECONDS) >= _BELL_SECONDS:
            self._rung[key] = now
            self.publisher.tell(bell_subject(key_from_route(key)).encode())

    def check_id(self, id: str, then: Callable[[bool], None]) -> None:
        """Whether a caller's own id is free: no call, ended or not, has it."""
        self.spawn(self._check_id(id, then), "check id")

    async def _check_id(self, id: str, then: Callable[[bool], None]) -> None:
        from stoker_sdk.broker.lookup import any_of

        client = self.client
        try:
            assert client is not None
            taken = await any_of(client, OUTCOMES, by_id("outcome", id)) or await any_of(
                client, CALLS, by_id("call", id)
            )
        except (StokerError, AssertionError):
            then(False)  # not knowing, we take a new one
        else:
            then(taken is None)

    def explain(self, then: Callable[[str], None]) -> None:
        """What the broker says of publishes that it does not answer; empty when that is nothing. Asked once for all."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._explain(), name="explain")
        self._asking.add_done_callback(lambda task: then("" if task.cancelled() else task.result()))

    async def _explain(self) -> str:
        from stoker_gateway.queue.room import write_error

        if self.client is None or not self.client.is_connected:
            return ""
        try:
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                return await write_error(self.client)
        except (StokerError, TimeoutError):
            return ""

    async def close(self) -> None:
        self.uploads.give_up()
        if self.publisher is not None:
            await self.publisher.drain(DEADLINE)
            await self.uploads.close(DEADLINE)
            self.publisher.close()
        if self._link is not None:
            self._link.close()
        if self._connecting is not None:
            self._connecting.cancel()
        if self.client is not None:
            await self.client.close()
