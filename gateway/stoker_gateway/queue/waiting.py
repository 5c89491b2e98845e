"""Which functions have calls, also those that no worker has heard of: removed ones, and such whose bell was lost.

Mostly the consumers say it (`depths.py`). Calls of a function that never had one are found by the server's index of
subjects, which is read only when the stream holds more than the consumers know of, twice in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.queue.depths import consumers
from stoker_gateway.queue.streams import ask_whole
from stoker_gateway.queue.subjects import CALLS, key_and_id, of_functions
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

if TYPE_CHECKING:
    from nats.aio.client import Client

_MOST_PAGES: Final = 20
"""Of 100,000 subjects each, as the server gives them."""


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct, frozen=True):
    state: _State = _State()


class Waiting:
    """`client` gives the connection, or raises `Unavailable`."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._was_more = False

    async def functions(self) -> set[FunctionKey]:
        """Those that have calls. Raises `Unavailable`."""
        known = {key: one.num_pending + one.num_ack_pending for key, one in (await consumers(self._client())).items()}
        found = {key for key, calls in known.items() if calls}
        is_more = (await self._info({})).messages > sum(known.values())
        if is_more and self._was_more:
            found |= await self._by_subject()
            is_more = False
        self._was_more = is_more
        return found

    async def _by_subject(self) -> set[FunctionKey]:
        found: set[FunctionKey] = set()
        offset = 0
        for _ in range(_MOST_PAGES):
            page = (await self._info({"subjects_filter": of_functions("call", "", ""), "offset": offset})).subjects
            found |= {named[0] for subject in page if (named := key_and_id(subject)) is not None}
            offset += len(page)
            if not page:
                break
        return found

    async def _info(self, body: dict[str, object]) -> _State:
        try:
            return msgspec.json.decode(await ask_whole(self._client(), f"STREAM.INFO.{CALLS}", body), type=_Info).state
        except msgspec.MsgspecError as error:
            raise Unavailable(f"what the broker says of {CALLS} cannot be read: {error}") from error
