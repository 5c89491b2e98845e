"""How many calls of each function wait or run, and since when the oldest does: read from the broker when asked.

The consumers know (`lane.py` makes one for each function that ever had a call), and the server lists 256 of them in one
answer. Only the age of the oldest costs a request for each function with calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.queue.subjects import CALLS, key_of_consumer, of_functions
from stoker_sdk.broker.lookup import first_of
from stoker_sdk.broker.requests import ask_whole
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import parse_rfc3339

if TYPE_CHECKING:
    from nats.aio.client import Client

CACHE_SECONDS: Final = 5.0
_AGE_SECONDS: Final = 30.0
_AT_ONCE: Final = 8
"""Requests for oldest calls, which come with their bodies."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Calls that have not ended, and when the oldest was stored (Unix seconds; 0: not known)."""

    calls: int
    oldest: float = 0.0


@dataclass(frozen=True, slots=True)
class _Oldest:
    floor: int
    at: float
    read: float


class _Sequences(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct, frozen=True):
    name: str
    ack_floor: _Sequences = _Sequences()
    num_ack_pending: int = 0
    num_pending: int = 0


class _Consumers(msgspec.Struct, frozen=True):
    total: int = 0
    consumers: list[_Consumer] = []


class Depths:
    """Of all functions. `client` gives the connection, or raises `Unavailable`."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._known: dict[FunctionKey, Depth] = {}
        self._oldest: dict[FunctionKey, _Oldest] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def read(self) -> dict[FunctionKey, Depth]:
        """At most some seconds old. Raises `Unavailable`."""
        async with self._reading:
            if time.monotonic() - self._read_at > CACHE_SECONDS:
                self._known = await self._read()
                self._read_at = time.monotonic()
            return self._known

    async def _read(self) -> dict[FunctionKey, Depth]:
        found = await consumers(self._client())
        busy = {key: one for key, one in found.items() if one.num_pending + one.num_ack_pending}
        self._oldest = {key: oldest for key, oldest in self._oldest.items() if key in busy}
        places = asyncio.Semaphore(_AT_ONCE)

        async def look(key: FunctionKey, floor: int) -> None:
            async with places:
                await self._look_for_oldest(key, floor)

        await asyncio.gather(*(look(key, one.ack_floor.stream_seq) for key, one in busy.items()))
        return {
            key: Depth(one.num_pending + one.num_ack_pending, self._oldest[key].at if key in self._oldest else 0.0)
            for key, one in found.items()
        }

    async def _look_for_oldest(self, key: FunctionKey, floor: int) -> None:
        """What lies behind the acknowledgements. A queue that stands still is looked at now and then."""
        now = time.monotonic()
        known = self._oldest.get(key)
        if known is not None and known.floor == floor and now - known.read < _AGE_SECONDS:
            return
        first = await first_of(self._client(), CALLS, of_functions("call", *key), floor + 1)
        if first is None:
            self._oldest.pop(key, None)
        else:
            self._oldest[key] = _Oldest(floor, parse_rfc3339(first.at).timestamp(), now)


async def consumers(client: Client) -> dict[FunctionKey, _Consumer]:
    """Those of all functions that ever had calls; foreign ones are left out. Raises `Unavailable`."""
    found: dict[FunctionKey, _Consumer] = {}
    offset = 0
    while True:
        answer = await ask_whole(client, f"CONSUMER.LIST.{CALLS}", {"offset": offset})
        try:
            page = msgspec.json.decode(answer, type=_Consumers)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the broker's list of consumers cannot be read: {error}") from error
        found |= dict(_named(page.consumers))
        offset += len(page.consumers)
        if not page.consumers or offset >= page.total:
            return found


def _named(listed: Iterable[_Consumer]) -> Iterable[tuple[FunctionKey, _Consumer]]:
    return ((key, one) for one in listed if (key := key_of_consumer(one.name)) is not None)
