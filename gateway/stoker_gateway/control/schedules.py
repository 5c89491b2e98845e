"""Schedules in control: a task that looks at the clock for all functions of all namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.queue.scheduler import Scheduler
from stoker_gateway.queue.tick_store import TickStore
from stoker_sdk.function import FunctionStatus


def make_scheduler(provider: Provider, namespaces: NamespaceStore, calls: StoredCalls) -> Scheduler:
    """The one for all functions of all namespaces."""

    def functions() -> Iterator[FunctionStatus]:
        return (status for name in namespaces.names() for status in provider.list(name))

    store = TickStore(lambda: calls.client)
    return Scheduler(functions, store, store)


class Runs(Protocol):
    """Schedules, say."""

    async def run(self) -> None: ...


@asynccontextmanager
async def running(work: Runs | None) -> AsyncIterator[None]:
    """It runs as long as this is open; None: async calls are off."""
    if work is None:
        yield
        return
    task = asyncio.get_running_loop().create_task(work.run(), name=type(work).__name__)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
