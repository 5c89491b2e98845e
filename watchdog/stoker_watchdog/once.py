"""Things that are made once per replica, however many calls ask for them at the same time: pools, clients, models.

The first call runs the factory; calls that come meanwhile wait for what it makes, and all later ones get it at once. A
factory that fails fails all who wait, and is not remembered: the next call tries again.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Factory = Callable[..., Any]


class _Making:
    """One factory's run: its outcome, once `ended` is set."""

    __slots__ = ("ended", "error", "thing", "thread")

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread = threading.get_ident()
        self.thing: Any = None
        self.error: BaseException | None = None


class Once:
    """What factories have made, or are making. A plain factory runs in the caller's thread, an `async` one in a task
    of its own, which goes on when the call that began it is cancelled.
    """

    __slots__ = ("_lock", "_made", "_making")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Factory, Any] = {}
        self._making: dict[Factory, _Making | asyncio.Task[Any]] = {}

    def made(self, factory: Factory) -> Any:
        """What the factory made; None while it has made nothing."""
        return self._made.get(factory)

    def get(self, factory: Factory, arguments: tuple[Any, ...]) -> Any:
        """The thing itself; of an `async` factory an awaitable that gives it. Raises what the factory raises."""
        if inspect.iscoroutinefunction(factory):
            return self._get_async(factory, arguments)
        try:
            return self._made[factory]
        except KeyError:
            pass
        with self._lock:
            if factory in self._made:
                return self._made[factory]
            making = self._making.get(factory)
            if making is None:
                making = mine = self._making[factory] = _Making()
            else:
                mine = None
        assert isinstance(making, _Making)
        return self._wait(factory, making) if mine is None else self._make(factory, arguments, mine)

    def _make(self, factory: Factory, arguments: tuple[Any, ...], making: _Making) -> Any:
        try:
            making.thing = factory(*arguments)
            self._made[factory] = making.thing
            return making.thing
        except BaseException as error:
            making.error = error
            raise
        finally:
            del self._making[factory]
            making.ended.set()

    def _wait(self, factory: Factory, making: _Making) -> Any:
        if making.thread == threading.get_ident():
            raise RuntimeError(f"{factory.__name__} asks for itself while it runs")
        making.ended.wait()
        if making.error is not None:
            raise making.error
        return making.thing

    def _get_async(self, factory: Factory, arguments: tuple[Any, ...]) -> Awaitable[Any]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise TypeError(
                f"{factory.__name__} is `async def`, and this handler runs in a thread: make both plain, or both async"
            ) from None
        if factory in self._made:
            return _ready(self._made[factory])
        task = self._making.get(factory)
        if task is None:
            # In no call's context: what a pool prints later is not of the call that happened to be the first.
            name, outside = f"once {factory.__name__}", contextvars.Context()
            task = self._making[factory] = loop.create_task(factory(*arguments), name=name, context=outside)
            task.add_done_callback(lambda done: self._finish(factory, done))
        assert isinstance(task, asyncio.Task)
        return asyncio.shield(task)

    def _finish(self, factory: Factory, task: asyncio.Task[Any]) -> None:
        del self._making[factory]
        if not task.cancelled() and task.exception() is None:
            self._made[factory] = task.result()


async def _ready(thing: Any) -> Any:
    return thing


def check_factory(factory: Factory) -> None:
    """Raises `TypeError` for a function that is made anew in each call, and would so be run in each."""
    name = getattr(factory, "__qualname__", "")
    if not name or "<locals>" in name or "<lambda>" in name:
        raise TypeError(
            f"context.once needs a function that is defined at the top of a module, and {name or factory!r} is not"
        )
