"""Schedules in control: a task that looks at the clock for all functions of all namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.queue.scheduler import Scheduler
from stoker_gateway.queue.tick_store import TickStore
from stoker_sdk.function import FunctionStatus

if TYPE_CHECKING:
    from nats.aio.client import Client


@asynccontextmanager
async def running_schedules(
    provider: Provider, namespaces: NamespaceStore, client: Callable[[], Client]
) -> AsyncIterator[Scheduler]:
    """Fires schedules as long as this is open. `client` gives the broker's connection, or raises `Unavailable`."""

    def functions() -> Iterator[FunctionStatus]:
        return (status for name in namespaces.names() for status in provider.list(name))

    store = TickStore(client)
    scheduler = Scheduler(functions, store, store)
    task = asyncio.get_running_loop().create_task(scheduler.run(), name="schedules")
    try:
        yield scheduler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
