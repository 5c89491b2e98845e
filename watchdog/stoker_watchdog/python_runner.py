"""Mode `python`: the handler is imported into this process, and every call is a call of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from stoker_watchdog.event import Context
from stoker_watchdog.front import Front
from stoker_watchdog.handler import Handler
from stoker_watchdog.handler_call import HandlerCall
from stoker_watchdog.settings import Settings
from stoker_watchdog.threads import Threads
from stoker_wire.server import Exchange


class PythonRunner:
    """Implements `Runner` for a handler that has been imported; to be made in the loop's thread."""

    def __init__(self, settings: Settings, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self.handler = handler
        self.context = Context(settings.function, settings.namespace, settings.secrets)
        self.threads = Threads(loop, settings.threads)

    async def open(self) -> None:
        self.context.state = await _call_hook(self.handler.init)

    def watch(self, end: Callable[[str], None]) -> None: ...

    def call(self, front: Front, exchange: Exchange) -> HandlerCall:
        return HandlerCall(self, front, exchange)

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        await _call_hook(self.handler.close)


async def _call_hook(hook: Callable[[], Any] | None) -> Any:
    if hook is None:
        return None
    if inspect.iscoroutinefunction(hook):
        return await hook()
    return await asyncio.to_thread(hook)
