"""Which functions have calls, also those that no worker has heard of: removed ones, and such whose bell was lost.

Mostly the consumers say it (`depths.py`). Calls of a function that never had one stay in the stream for ever, so they
become its oldest; that is looked at, and some by chance, where the stream holds more than the consumers know of.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.queue.depths import consumers
from stoker_gateway.queue.subjects import CALLS, key_and_id, of_functions
from stoker_sdk.broker.lookup import first_of
from stoker_sdk.broker.requests import ask_whole
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

if TYPE_CHECKING:
    from nats.aio.client import Client

_BY_CHANCE: Final = 4


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0


class _Info(msgspec.Struct, frozen=True):
    state: _State = _State()


class Waiting:
    """`client` gives the connection, or raises `Unavailable`."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    async def functions(self) -> set[FunctionKey]:
        """Those that have calls. Raises `Unavailable`."""
        known = {key: one.num_pending + one.num_ack_pending for key, one in (await consumers(self._client())).items()}
        found = {key for key, calls in known.items() if calls}
        stream = await self._state()
        if stream.messages > sum(known.values()):
            chance = [random.randint(stream.first_seq, stream.last_seq) for _ in range(_BY_CHANCE)]
            for sequence in (stream.first_seq, *chance):
                one = await first_of(self._client(), CALLS, of_functions("call", "", ""), sequence)
                if one is not None and (named := key_and_id(one.subject)) is not None:
                    found.add(named[0])
        return found

    async def _state(self) -> _State:
        try:
            return msgspec.json.decode(await ask_whole(self._client(), f"STREAM.INFO.{CALLS}", {}), type=_Info).state
        except msgspec.MsgspecError as error:
            raise Unavailable(f"what the broker says of {CALLS} cannot be read: {error}") from error
