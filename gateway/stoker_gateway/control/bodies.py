"""Reading what a client sends, with a limit on how much: bodies and query parameters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from stoker_gateway.control import go_json
from stoker_sdk.errors import BadInput, TooLarge, TooSlow

T = TypeVar("T", bound=msgspec.Struct)


async def read_struct(request: web.Request, kind: type[T], limit: int) -> T:
    """The JSON body, read as Go reads it. Raises `BadInput` or `TooLarge`; `limit` is in bytes."""
    return go_json.decode(kind, b"".join([chunk async for chunk in chunks(request, limit)]))


async def chunks(request: web.Request, limit: int, idle: float | None = None) -> AsyncIterator[bytes]:
    """The body in pieces, at most `limit` bytes. Raises `TooLarge`, `TooSlow`, `BadInput` if it breaks off.

    `idle` is how many seconds the client may take for a piece; None leaves that to the server in front.
    """
    check_announced_length(request, limit)
    size = 0
    while chunk := await _next_chunk(request, idle):
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


def check_announced_length(request: web.Request, limit: int) -> None:
    """Refuse a body before its first byte when its length is announced."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)


async def _next_chunk(request: web.Request, idle: float | None) -> bytes:
    try:
        async with asyncio.timeout(idle):
            return await request.content.readany()
    except TimeoutError:
        raise TooSlow(f"the body stopped coming for {idle:g} seconds: send it again") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadInput("the body broke off or is not encoded as its headers say: send it again") from error


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is longer than {limit} bytes, which is the most here: send less")


def last(request: web.Request, name: str, default: str = "") -> str:
    """A query parameter; the last one counts when it is repeated (contract section 2.5)."""
    return request.query.getall(name, [default])[-1]


def is_true(text: str) -> bool:
    """What Go takes for true; anything unreadable is false (contract section 2.5)."""
    return text in ("1", "t", "T", "true", "TRUE", "True")
