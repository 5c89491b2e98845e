"""`POST /github/webhook`: proved by its signature before anything is read from it, stored before it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from stoker_builder.pipeline.github.connection import Connections
from stoker_builder.pipeline.github.signature import check_signature
from stoker_builder.pipeline.webhook_body import read_body
from stoker_sdk.errors import BadInput, NotFound

_FORM: Final = "application/x-www-form-urlencoded"
_MAX_ID: Final = 100

Take = Callable[[str, str, bytes], Awaitable[str]]
"""Carries out a delivery by its event, its id and its body, and says in a line what came of it."""


class Webhook:
    def __init__(self, connections: Connections, take: Take) -> None:
        self._connections = connections
        self._take = take

    async def receive(self, request: web.Request) -> web.Response:
        connection = self._connections.current
        if connection is None or not connection.secrets:
            raise NotFound("GitHub is not connected to this platform: run `stoker github setup`")
        body = await read_body(request)
        check_signature(request.headers.get("X-Hub-Signature-256", ""), body, connection.secrets)
        event, guid = _header(request, "X-GitHub-Event"), _header(request, "X-GitHub-Delivery")
        said = await self._take(event, guid, _payload(request, body))
        return web.Response(status=202, text=said + "\n")


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
