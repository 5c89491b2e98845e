"""The page of one run: its way from commit to first call, its log, and the same live, as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from stoker_gateway.pages.access import origin_or_none
from stoker_gateway.pages.keys import BACKEND, SESSION
from stoker_gateway.pages.page import page
from stoker_gateway.pages.rendering import render
from stoker_gateway.pages.timeline import function_steps, steps
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.messages import FunctionFigures
from stoker_sdk.runs import RUN, Run, RunLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_SHOWN: Final = 2000
"""Lines on the page; the whole log is a text of its own."""
_LOOK_SECONDS: Final = 1.0
_ALIVE_LOOKS: Final = 15
"""After so many looks without news a comment says that we are there, so that nothing on the way hangs up."""


async def show_run(request: web.Request) -> web.Response:
    run = await _visible(request)
    lines = await request.app[BACKEND].run_lines(run.id)
    left_out = max(0, len(lines) - _SHOWN)
    values = await _values(request, run)
    return page(request, "run.html", lines=lines[left_out:], left_out=left_out, count=len(lines), **values)


async def show_log(request: web.Request) -> web.Response:
    run = await _visible(request)
    lines = await request.app[BACKEND].run_lines(run.id)
    text = "".join(f"{line.at} {f'{line.function}: ' if line.function else ''}{line.text}\n" for line in lines)
    return web.Response(text=text)


async def follow_run(request: web.Request) -> web.StreamResponse:
    """Events: `line` (its number is the event's id, and where a browser that comes again goes on), `head`, `end`."""
    run = await _visible(request)
    after = _number(request.headers.get("Last-Event-ID") or request.query.get("after", "0"))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    watching = asyncio.create_task(_send_heads(request, response, run), name=f"watch run {run.id}")
    try:
        await _send_lines(request, response, run.id, after)
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    await _send_head(request, response, await request.app[BACKEND].run(run.id))
    await _send(response, "end", "")
    return response


async def retry_run(request: web.Request) -> web.Response:
    run = await request.app[BACKEND].retry_run((await _visible(request)).id)
    return web.Response(status=303, headers={"Location": f"/ui/runs/{run.id}"})


async def cancel_run(request: web.Request) -> web.Response:
    run = await request.app[BACKEND].cancel_run((await _visible(request)).id)
    return web.Response(status=303, headers={"Location": f"/ui/runs/{run.id}"})


async def _visible(request: web.Request) -> Run:
    run = await request.app[BACKEND].run(_number(request.match_info["id"]))
    if not request[SESSION].may_see_run(run):
        raise NotFound(str(run.id))
    return run


async def _values(request: web.Request, run: Run) -> dict[str, Any]:
    """What the head of the page shows: what failed first, and what was left as it was last, by name only."""
    live = await _live_of(request, run)
    changed = sorted(
        (each for each in run.functions if each.state != "unchanged"), key=lambda each: each.state != "failed"
    )
    return {
        "run": run,
        "steps": steps(run),
        "functions": [(each, function_steps(run, each, live)) for each in changed],
        "unchanged": [each for each in run.functions if each.state == "unchanged"],
    }


async def _live_of(request: web.Request, run: Run) -> dict[str, FunctionFigures]:
    """The figures of the functions that are live by this run, by name. Without them the page is worth having, too."""
    backend = request.app[BACKEND]
    try:
        statuses, figures = await asyncio.gather(backend.functions(), backend.figures())
    except StokerError:
        return {}
    by_name = {(one.namespace, one.name): one for one in figures}
    return {
        status.name: by_name[status.namespace, status.name]
        for status in statuses
        if (status.annotations or {}).get(RUN) == str(run.id)
        and origin_or_none(status) is not None
        and (status.namespace, status.name) in by_name
    }


async def _send_lines(request: web.Request, response: web.StreamResponse, id: int, after: int) -> None:
    number = 0
    lines = cast("AsyncGenerator[RunLine, None]", request.app[BACKEND].follow_run(id))
    async with aclosing(lines):
        async for line in lines:
            number += 1
            if number > after:
                await _send(response, "line", render("_line.html", line=line), id=number)


async def _send_heads(request: web.Request, response: web.StreamResponse, run: Run) -> None:
    known, quiet = run.change, 0
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            run = await request.app[BACKEND].run(run.id)
        except StokerError:
            continue
        quiet += 1
        if run.change != known:
            known, quiet = run.change, 0
            await _send_head(request, response, run)
        elif quiet % _ALIVE_LOOKS == 0:
            await response.write(b": still there\n\n")


async def _send_head(request: web.Request, response: web.StreamResponse, run: Run) -> None:
    await _send(response, "head", render("_run_head.html", **await _values(request, run)))


async def _send(response: web.StreamResponse, event: str, text: str, id: int = 0) -> None:
    data = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    await response.write(f"{f'id: {id}{chr(10)}' if id else ''}event: {event}\n{data}\n".encode())


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise NotFound(text)
    return int(text)


ROUTES = (
    web.get("/ui/runs/{id}", show_run),
    web.get("/ui/runs/{id}/log", show_log),
    web.get("/ui/runs/{id}/events", follow_run, allow_head=False),
    web.post("/ui/runs/{id}/retry", retry_run),
    web.post("/ui/runs/{id}/cancel", cancel_run),
)
