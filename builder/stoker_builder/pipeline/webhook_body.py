"""The body of a request of which nobody knows yet who sends it: bounded in size, in time, and in how many at once."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Final

from aiohttp import web

from stoker_sdk.errors import TooLarge, TooSlow

MAX_BODY: Final = 25 * 1024 * 1024
"""Bytes: GitHub sends no more."""
_SECONDS: Final = 10.0
"""For the whole body."""
_SMALL: Final = 1024 * 1024
_LARGE_AT_ONCE: Final = 4
"""Bodies above `_SMALL` that are held in memory."""
_CHUNK: Final = 64 * 1024

_large = asyncio.Semaphore(_LARGE_AT_ONCE)


async def read_body(request: web.Request) -> bytes:
    """Raises `TooLarge`, before anything is read where the length is said, and `TooSlow`."""
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise _too_large()
    async with _large if length is None or length > _SMALL else nullcontext():
        return await _read(request)


async def _read(request: web.Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_SECONDS):
            async for chunk in request.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > MAX_BODY:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError:
        raise TooSlow(f"the webhook's body took longer than {_SECONDS:g} seconds: send it again") from None
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge(f"a webhook has at most {MAX_BODY >> 20} MiB")
