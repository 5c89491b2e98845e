"""Schedules in control: a task that looks at the clock for all functions of all namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.queue.scheduler import Scheduler
from stoker_gateway.queue.tick_store import TickStore
from stoker_sdk.function import FunctionStatus


@asynccontextmanager
async def running_schedules(
    provider: Provider, namespaces: NamespaceStore, calls: StoredCalls | None
) -> AsyncIterator[None]:
    """Fires schedules as long as this is open; not where async calls are off."""
    if calls is None:
        yield
        return

    def functions() -> Iterator[FunctionStatus]:
        return (status for name in namespaces.names() for status in provider.list(name))

    store = TickStore(lambda: calls.client)
    task = asyncio.get_running_loop().create_task(Scheduler(functions, store, store).run(), name="schedules")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
