"""The page of one function: how it stands, how it is called, what it is made of, what went wrong, what it printed."""

from __future__ import annotations

import asyncio

from aiohttp import web

from stoker_gateway.pages.backend import FunctionAnswer
from stoker_gateway.pages.keys import BACKEND, SESSION
from stoker_gateway.pages.page import gateway_of, page
from stoker_gateway.pages.rows import function_row
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.function import FunctionStatus
from stoker_sdk.messages import LogMessage

_LINES = 100


async def show_function(request: web.Request) -> web.Response:
    return await _page(request, await _visible(request))


async def call_function(request: web.Request) -> web.Response:
    """A form's text goes to the function, and its answer stands on the page."""
    status = await _visible(request)
    body = str((await request.post()).get("body", ""))
    answer = await request.app[BACKEND].call(status.namespace, status.name, body.replace("\r\n", "\n"))
    return await _page(request, status, body=body, answer=answer)


async def _visible(request: web.Request) -> FunctionStatus:
    """Raises `NotFound`, the same for what is not there and what is somebody else's."""
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    try:
        status = await request.app[BACKEND].function(namespace, name)
    except BadInput:
        raise NotFound(name) from None  # no function can be called so
    if not request[SESSION].may_see_function(status):
        raise NotFound(name)
    return status


async def _page(
    request: web.Request, status: FunctionStatus, *, body: str = "", answer: FunctionAnswer | None = None
) -> web.Response:
    backend, namespace, name = request.app[BACKEND], status.namespace, status.name
    figures, revisions, lines = await asyncio.gather(
        backend.figures(), backend.revisions(namespace, name), _log_tail(request, namespace, name)
    )
    one = next((each for each in figures if (each.namespace, each.name) == (namespace, name)), None)
    row = function_row(status, one, gateway_of(request))
    return page(
        request,
        "function.html",
        row=row,
        revisions=revisions[::-1],
        lines=lines,
        can_call=backend.can_call,
        body=body,
        answer=answer,
    )


async def _log_tail(request: web.Request, namespace: str, name: str) -> list[LogMessage] | None:
    """None where the log cannot be had now: the page is worth having without."""
    try:
        return await request.app[BACKEND].log_tail(namespace, name, _LINES)
    except StokerError:
        return None


ROUTES = (
    web.get("/ui/functions/{namespace}/{name}", show_function),
    web.post("/ui/functions/{namespace}/{name}/call", call_function),
)
