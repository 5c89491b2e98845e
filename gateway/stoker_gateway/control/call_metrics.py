"""What is told of async calls when somebody scrapes: counts of all processes, and what waits now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.queue.counters import CallCounters, add_up_calls
from stoker_gateway.queue.depths import Depth
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

log = logging.getLogger(__name__)

_DEPTHS_SECONDS: Final = 2.0


@dataclass(frozen=True)
class CallFigures:
    """`missed` are ticks of schedules; `depths` is None while they are not known, or another tells them."""

    counts: list[CallCounters]
    reconnects: Mapping[str, int]
    missed: Mapping[FunctionKey, int]
    depths: Mapping[FunctionKey, Depth] | None


class CountedByProcesses(Protocol):
    """What proxies and workers counted, as they said last."""

    def calls(self) -> list[CallCounters]: ...
    def reconnects(self) -> dict[str, int]: ...


class CallMetrics:
    """`missed` gives the missed ticks of schedules, by function."""

    def __init__(
        self, counted: CountedByProcesses, calls: StoredCalls, missed: Callable[[], Mapping[FunctionKey, int]]
    ) -> None:
        self._counted = counted
        self._calls = calls
        self._missed = missed

    async def figures(self, *, common: bool) -> CallFigures:
        """`common`: with what every platform that shares the broker would tell alike."""
        counts = add_up_calls([self._counted.calls(), self._calls.counting.all()])
        missed, depths = (self._missed(), await self._depths()) if common else ({}, None)
        return CallFigures(counts, self._counted.reconnects(), missed, depths)

    async def _depths(self) -> Mapping[FunctionKey, Depth] | None:
        try:
            async with asyncio.timeout(_DEPTHS_SECONDS):
                return await self._calls.depths.read()
        except (Unavailable, TimeoutError) as error:
            log.debug("no depths: %s", error)
            return None
