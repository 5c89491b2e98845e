"""`POST /github/webhook`: proved by its signature before anything is read from it, stored before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from stoker_builder.pipeline.github.connection import Connections
from stoker_builder.pipeline.github.signature import check_signature
from stoker_sdk.errors import BadInput, NotFound, TooLarge, TooSlow

MAX_BODY: Final = 25 * 1024 * 1024
"""Bytes: GitHub sends no more."""
_SECONDS: Final = 10.0
"""For the whole body."""
_SMALL: Final = 1024 * 1024
_LARGE_AT_ONCE: Final = 4
"""Bodies above `_SMALL` that are held in memory before anybody knows whose they are."""
_CHUNK: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_ID: Final = 100

Take = Callable[[str, str, bytes], Awaitable[str]]
"""Carries out a delivery by its event, its id and its body, and says in a line what came of it."""


class Webhook:
    def __init__(self, connections: Connections, take: Take) -> None:
        self._connections = connections
        self._take = take
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def receive(self, request: web.Request) -> web.Response:
        connection = self._connections.current
        if connection is None or not connection.secrets:
            raise NotFound("GitHub is not connected to this platform: run `stoker github setup`")
        length = request.content_length
        if length is not None and length > MAX_BODY:
            raise _too_large()
        async with self._large if length is None or length > _SMALL else nullcontext():
            body = await _read(request)
        check_signature(request.headers.get("X-Hub-Signature-256", ""), body, connection.secrets)
        event, guid = _header(request, "X-GitHub-Event"), _header(request, "X-GitHub-Delivery")
        said = await self._take(event, guid, _payload(request, body))
        return web.Response(status=202, text=said + "\n")


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


def _payload(request: web.Request, body: bytes) -> bytes:
    """The JSON, however GitHub was told to send it."""
    if request.content_type != _FORM:
        return body
    try:
        return parse_qs(body.decode(), max_num_fields=8)["payload"][0].encode()
    except (UnicodeDecodeError, KeyError, ValueError):
        raise BadInput("the webhook's form has no field `payload`: choose application/json on GitHub") from None


def _header(request: web.Request, name: str) -> str:
    text = request.headers.get(name, "")
    if not text or len(text) > _MAX_ID or not text.isascii() or not text.isprintable():
        raise BadInput(f"{name} is missing or is not one of GitHub's")
    return text


def _too_large() -> TooLarge:
    return TooLarge(f"a webhook has at most {MAX_BODY >> 20} MiB")
