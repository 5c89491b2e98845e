"""How many calls ended at the other gateways that share the broker: each tells the others, every so often.

So a list of functions counts all calls whichever gateway is asked, and waits for none of them. What a gateway counted
is forgotten some time after it has ended, by all alike; sums over a longer time are a matter of metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.counters import Counters
from stoker_sdk.errors import StokerError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

log = logging.getLogger("stoker.control")

SUBJECT: Final = "stoker.counts"
"""Core NATS, to every gateway."""
EVERY_SECONDS: Final = 2.0
_ALL_AGAIN: Final = 5
"""Every so many times all counts are told, for those who have just begun to listen."""
GONE_SECONDS: Final = 30.0
_AT_ONCE: Final = 5000
"""Functions in one message, which a broker takes up to 1 MB of."""


class Told(msgspec.Struct, frozen=True):
    """`ended`: calls by `NAME.NAMESPACE`, since the gateway's start; those that are not named are as before."""

    gateway: str
    ended: dict[str, int]


class SharedCounts:
    """`client` gives the connection, or raises `Unavailable`; `own` is what this gateway counts."""

    def __init__(
        self,
        client: Callable[[], Client],
        own: Counters,
        every: float = EVERY_SECONDS,
        gone_after: float = GONE_SECONDS,
    ) -> None:
        self._client = client
        self._own = own
        self._every, self._gone_after = every, gone_after
        self._me = os.urandom(8).hex()
        self._told: dict[str, int] = {}
        self._heard: dict[str, tuple[float, dict[str, int]]] = {}

    def others(self) -> Mapping[str, int]:
        """Calls that ended at other gateways, by function."""
        alive = monotonic() - self._gone_after
        self._heard = {gateway: heard for gateway, heard in self._heard.items() if heard[0] > alive}
        sums: Counter[str] = Counter()
        for _, ended in self._heard.values():
            sums.update(ended)
        return sums

    async def run(self) -> None:
        """Tell and hear, until it is cancelled."""
        listening: Client | None = None
        turn = 0
        while True:
            try:
                client = self._client()
                if listening is not client:
                    await client.subscribe(SUBJECT, cb=self._hear)
                    listening = client
                await self._tell(client, everything=turn % _ALL_AGAIN == 0)
                turn += 1
            except StokerError as error:
                log.debug("%s", error)
            except Exception:
                log.exception("other gateways could not be told what was counted")
            await asyncio.sleep(self._every)

    async def _tell(self, client: Client, *, everything: bool) -> None:
        now = {counted.key: counted.ended for counted in await self._own.totals()}
        news = [(key, ended) for key, ended in now.items() if everything or self._told.get(key) != ended]
        for begin in range(0, len(news) or everything, _AT_ONCE):
            message = Told(self._me, dict(news[begin : begin + _AT_ONCE]))
            await client.publish(SUBJECT, msgspec.json.encode(message))
        self._told = now

    async def _hear(self, message: Msg) -> None:
        try:
            told = msgspec.json.decode(message.data, type=Told)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.debug("something that is no count came on %s", SUBJECT)
            return
        if told.gateway != self._me:
            _, before = self._heard.get(told.gateway, (0.0, {}))
            self._heard[told.gateway] = (monotonic(), before | told.ended)
