"""`/system/logs`: what a function printed, as NDJSON, and what it goes on printing (contract 2.5).

Done better than the original: an unknown function is 404, and a bad `tail` or `since` is 400 with the reason.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, cast

from aiohttp import web

from stoker_gateway.control.bodies import is_true, last
from stoker_gateway.control.keys import PROVIDER
from stoker_gateway.control.namespaces import existing_namespace
from stoker_gateway.control.streams import LineStream, answer_with_lines
from stoker_gateway.providers.base import LogLine, LogQuery
from stoker_sdk.errors import BadInput
from stoker_sdk.names import FunctionKey, check_function_name
from stoker_sdk.units import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def stream_logs(request: web.Request) -> web.StreamResponse:
    key, query = _key(request), _query(request)
    provider = request.app[PROVIDER]
    provider.get(key)  # 404 while there still is a status to send

    async def send(stream: LineStream) -> None:
        await stream.open()
        lines = cast("AsyncGenerator[LogLine, None]", provider.logs(key, query))
        async with aclosing(lines):
            async for line in lines:
                await stream.send(line)

    return await answer_with_lines(request, send)


def _key(request: web.Request) -> FunctionKey:
    name = last(request, "name")
    if not name:
        raise BadInput("name: is required; it says whose log")
    return FunctionKey(existing_namespace(request, last(request, "namespace")), check_function_name(name))


def _query(request: web.Request) -> LogQuery:
    return LogQuery(
        instance=last(request, "instance"),
        since=_since(last(request, "since")),
        tail=_tail(last(request, "tail")),
        follow=is_true(last(request, "follow")),
    )


def _since(text: str) -> datetime | None:
    # A plus sign that was not escaped in the URL arrives as a space.
    return parse_rfc3339(text.replace(" ", "+"), "since") if text else None


def _tail(text: str) -> int:
    if not text:
        return -1
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise BadInput(f"tail {text[:40]!r} is not a number of lines: write a whole number, or -1 for all")
    return max(-1, int(text))


ROUTES = (web.get("/system/logs", stream_logs, allow_head=False),)
