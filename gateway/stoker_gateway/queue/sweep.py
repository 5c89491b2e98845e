"""Removing calls that have ended from their stream, many at a time.

A work queue would remove each call as it is acknowledged, and write that to the disk each time. Here an
acknowledgement is only noted by the consumer, and the stream is purged now and then up to where all are acknowledged.
A call that takes long holds that up, so what ended behind it is removed one by one, a little later.

What is not swept when a worker dies is delivered again at worst; it is then found to have its outcome.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.subjects import CALLS, consumer_name, of_functions
from stoker_sdk.broker.requests import acknowledged_up_to, ask
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

if TYPE_CHECKING:
    from nats.aio.client import Client

_PATIENCE: Final = 2.0
_MOST: Final = 500
"""Single removals of one sweep."""


class Sweep:
    """One function's calls. `ended` notes the sequence of one."""

    def __init__(self, function: FunctionKey) -> None:
        self._function = function
        self._consumer = consumer_name(function)
        self._ended: dict[int, float] = {}
        self._purged = 0
        self.due = True
        """Whether another worker, or this one in its life before, may have left something."""

    def __bool__(self) -> bool:
        """Whether there is something to do."""
        return self.due or bool(self._ended)

    def ended(self, sequence: int) -> None:
        self._ended[sequence] = asyncio.get_running_loop().time()

    async def run(self, client: Client) -> None:
        """Raises `Unavailable`: then it is for the next time."""
        floor = await acknowledged_up_to(client, CALLS, self._consumer)
        if floor > self._purged:
            swept = {"filter": of_functions("call", *self._function), "seq": floor + 1}
            if (error := await ask(client, f"STREAM.PURGE.{CALLS}", swept)) is not None:
                raise Unavailable(f"the broker does not purge {CALLS}: {error.description}")
            self._purged = floor
        self.due = False
        self._ended = {sequence: at for sequence, at in self._ended.items() if sequence > floor}
        before = asyncio.get_running_loop().time() - _PATIENCE
        late = [sequence for sequence, at in self._ended.items() if at < before]
        for sequence in late[:_MOST]:
            await ask(client, f"STREAM.MSG.DELETE.{CALLS}", {"seq": sequence, "no_erase": True})  # or it is gone
            del self._ended[sequence]
