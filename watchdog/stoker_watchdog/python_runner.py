"""Mode `python`: the handler is imported into this process, and every call is a call of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stoker_watchdog.event import Context, ReplicaFacts
from stoker_watchdog.front import Front
from stoker_watchdog.handler import Handler
from stoker_watchdog.handler_call import HandlerCall
from stoker_watchdog.hooks import InitFailed
from stoker_watchdog.settings import Settings
from stoker_watchdog.threads import Threads
from stoker_wire.server import Exchange


class PythonRunner:
    """Implements `Runner` for a handler that has been imported; to be made in the loop's thread."""

    def __init__(self, settings: Settings, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self.handler = handler
        self.facts = ReplicaFacts(settings.function, settings.namespace, settings.secrets, settings.connections)
        self.threads = Threads(loop, settings.threads)
        self.has_health = handler.health is not None

    async def open(self) -> None:
        if self.handler.init is not None:
            try:
                self.facts.state = await self.handler.init.run(Context(self.facts))
            except (ImportError, SyntaxError, MemoryError):
                raise  # with advice of their own
            except Exception as error:
                raise InitFailed(f"`init` raised {type(error).__name__}: {error}") from error

    def watch(self, end: Callable[[str], None]) -> None: ...

    def call(self, front: Front, exchange: Exchange) -> HandlerCall:
        return HandlerCall(self, front, exchange)

    async def health(self) -> str:
        """Asks the hook. False, other empty values than None, and exceptions are bad; only the last have a reason."""
        hook = self.handler.health
        if hook is None:
            return ""
        if hook.busy:
            return "`health` has not returned since it was called last"
        try:
            result = await hook.run(Context(self.facts))
            return "" if result is None or result else f"`health` returned {result!r}"
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return f"`health` raised {type(error).__name__}: {error}"

    async def close(self) -> None:
        if self.handler.close is not None:
            await self.handler.close.run(Context(self.facts))
