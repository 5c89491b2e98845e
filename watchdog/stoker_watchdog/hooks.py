"""The optional functions of a handler's module beside `handle`: `init`, `health`, `close`, plain or `async def`.

Each takes nothing or the context. A plain one runs in a thread, so that it never holds up the loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class BadHook(Exception):
    """A hook that cannot be called; the message says what to change."""


class InitFailed(Exception):
    """The hook `init` raised; the message says what, and the cause is that."""


class Hook:
    """One hook, found in the module and checked."""

    __slots__ = ("_call", "_is_async", "_takes_context", "_thread")

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._takes_context = takes_context(call)
        self._is_async = inspect.iscoroutinefunction(call)
        self._thread: asyncio.Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a thread runs it still: cancelling stops an `async def`, and no thread."""
        return self._thread is not None and not self._thread.done()

    async def run(self, context: Any) -> Any:
        """What it returns. Raises what it raises, `SystemExit` included."""
        arguments = (context,) if self._takes_context else ()
        if self._is_async:
            return await self._call(*arguments)
        self._thread = asyncio.get_running_loop().run_in_executor(None, self._call, *arguments)
        result = await asyncio.shield(self._thread)
        return await result if inspect.isawaitable(result) else result


def find_hook(module: ModuleType, name: str) -> Hook | None:
    """The hook that the module itself defines. Raises `BadHook` for one that takes too much."""
    found = getattr(module, name, None)
    if not inspect.isfunction(found) or found.__module__ != module.__name__:
        return None
    try:
        return Hook(found)
    except TypeError as error:
        raise BadHook(f"{error}; a helper of another kind needs another name") from None


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether it is to be given the context: it has one parameter that must be given, or whose name is `context`.

    Raises `TypeError` when it needs more than that.
    """
    code = getattr(function, "__code__", None)
    if type(function) is FunctionType and code is not None and not hasattr(function, "__wrapped__"):
        # The common case without `inspect.signature`, which costs a replica 200 KB.
        names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
        required: int = code.co_argcount - len(function.__defaults__ or ())
        others = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    else:
        names, required, others = _signature(function)
    if required + others > 1 or others:
        name = getattr(function, "__name__", "it")
        raise TypeError(f"`{name}` takes {required + others} arguments: define {name}() or {name}(context)")
    return required == 1 or names[:1] == ("context",)


def _signature(function: Callable[..., Any]) -> tuple[tuple[str, ...], int, int]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return (), 0, 0  # some built-in classes do not tell
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = sum(p.default is p.empty for p in positional)
    others = sum(p.default is p.empty for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in positional), required, others
