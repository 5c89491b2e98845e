"""Finds the handler in the function's module, says what shape it has, and turns what it returns into an answer."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from stoker_watchdog.hooks import BadHook, Hook, find_hook
from stoker_wire.message import field_block

_P = inspect.Parameter
_ANSWER_KEYS = frozenset(("statusCode", "body", "headers"))
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_BYTES = b"Content-Type: application/octet-stream\r\n"
_JSON = b"Content-Type: application/json\r\n"


class HandlerError(Exception):
    """The function's module cannot be used; the message says why, and what to change."""


@dataclass(frozen=True)
class Handler:
    """`takes_event`: called with (event, context), else with the body's text. The hooks are None where absent."""

    call: Callable[..., Any]
    takes_event: bool
    is_async: bool
    init: Hook | None = None
    health: Hook | None = None
    close: Hook | None = None


@dataclass(frozen=True)
class Answer:
    """What goes to the client. `block` is headers ready for the wire; `body` is bytes, or an iterator of pieces."""

    status: int
    block: bytes
    body: Any


def load_handler(name: str) -> Handler:
    """Import the module and inspect it. Raises `HandlerError`, or whatever the import raises."""
    module = importlib.import_module(name)
    call = getattr(module, "handle", None)
    if not callable(call):
        raise HandlerError(
            f"{name.rpartition('.')[2]}.py has no function `handle`: define handle(req) or handle(event, context)"
        )
    flags = _flags(call)
    is_async = bool(flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))
    try:
        hooks = [find_hook(module, hook) for hook in ("init", "health", "close")]
    except BadHook as error:
        raise HandlerError(str(error)) from None
    return Handler(call, _takes_event(call), is_async, *hooks)


def _flags(call: Callable[..., Any]) -> int:
    """The code flags of what a call would run, through decorators that say what they wrap."""
    code = getattr(inspect.unwrap(call), "__code__", None) or getattr(type(call).__call__, "__code__", None)
    return code.co_flags if code is not None else 0


def _takes_event(call: Callable[..., Any]) -> bool:
    code = getattr(call, "__code__", None)
    if type(call) is FunctionType and code is not None and not hasattr(call, "__wrapped__"):
        # The common case without `inspect.signature`, which costs a replica 200 KB.
        positional, optional = code.co_argcount, len(call.__defaults__ or ())
        return _check_arguments(positional, positional - optional, bool(code.co_flags & inspect.CO_VARARGS))
    kinds = [(p.kind, p.default is p.empty) for p in inspect.signature(call).parameters.values()]
    named = [required for kind, required in kinds if kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)]
    return _check_arguments(len(named), sum(named), any(kind == _P.VAR_POSITIONAL for kind, _ in kinds))


def _check_arguments(positional: int, required: int, variable: bool) -> bool:
    """Whether a handler with these parameters takes (event, context); it takes (req) otherwise."""
    if required > 2 or not (positional or variable):
        raise HandlerError(f"`handle` takes {required} arguments: define handle(req) or handle(event, context)")
    return positional > 1 or variable


def answer_from(result: Any) -> Answer:
    """The answer for whatever a handler returned. Raises `HandlerError` for what cannot be sent."""
    if isinstance(result, str):
        return Answer(200, _TEXT, result.encode("utf-8", "surrogateescape"))
    if isinstance(result, Mapping):
        if _ANSWER_KEYS.isdisjoint(result):
            return Answer(200, _JSON, _to_json(result))
        return _answer_from_parts(result)
    if result is None:
        return Answer(200, _TEXT, b"")
    if isinstance(result, bytes | bytearray | memoryview):
        return Answer(200, _BYTES, bytes(result))
    if _is_stream(result):
        return Answer(200, _TEXT, result)
    if isinstance(result, list | tuple | bool | int | float):
        return Answer(200, _JSON, _to_json(result))
    raise HandlerError(f"`handle` returned {type(result).__name__}: return text, bytes, a dict, None or a generator")


def _answer_from_parts(parts: Mapping[str, Any]) -> Answer:
    status = parts.get("statusCode", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 999:
        raise HandlerError(f"`handle` returned statusCode {status!r}: use a number from 200 to 999")
    content = parts.get("body")
    if isinstance(content, Mapping | list | tuple | bool | int | float):
        block, body = _JSON, _to_json(content)
    else:
        plain = answer_from(content)
        block, body = plain.block, plain.body
    headers = parts.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise HandlerError(f"`handle` returned headers of type {type(headers).__name__}: use a dict")
    if headers:
        fields = _fields(headers)
        own_type = any(name.lower() == b"content-type" for name, _ in fields)
        block = field_block(fields) + (b"" if own_type else block)
    return Answer(status, block, body)


def _fields(headers: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    fields = []
    for name, value in headers.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            field = (str(name).encode("latin-1", "replace"), str(one).encode("utf-8"))
            if not _usable(*field):
                raise HandlerError(f"`handle` returned the header {name!r}, whose name or value no header can have")
            if field[0].lower() not in _NOT_A_HANDLERS:
                fields.append(field)
    return fields


_NOT_A_HANDLERS = {
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"keep-alive",
    b"upgrade",
    b"trailer",
}
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _usable(name: bytes, value: bytes) -> bool:
    return (
        bool(name) and _TOKEN.issuperset(name) and not any((byte < 32 and byte != 9) or byte == 127 for byte in value)
    )


def _is_stream(result: Any) -> bool:
    return hasattr(result, "__next__") or hasattr(result, "__anext__") or hasattr(result, "__aiter__")


def _to_json(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_jsonable).encode()
    except (TypeError, ValueError) as error:
        raise HandlerError(f"`handle` returned something that is not JSON: {error}") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def chunk_bytes(chunk: Any) -> bytes:
    """One piece that a generator yielded."""
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "surrogateescape")
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise HandlerError(f"the generator yielded {type(chunk).__name__}: yield text or bytes")
