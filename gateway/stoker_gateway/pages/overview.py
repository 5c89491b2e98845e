"""The overview of everything that somebody may see, the page of one owner, and the plain list of functions."""

from __future__ import annotations

import asyncio

from aiohttp import web

from stoker_gateway.pages.keys import BACKEND, SESSION
from stoker_gateway.pages.page import gateway_of, page
from stoker_gateway.pages.rows import FunctionRow, RepositoryRow, by_owner, function_rows, repository_rows
from stoker_sdk.errors import NotFound

_RUNS = 500
"""Of the newest runs, repositories are learnt."""


async def show_overview(request: web.Request) -> web.Response:
    rows, repositories = await _everything(request)
    session = request[SESSION]
    groups = by_owner(rows, repositories)
    for owner in session.owners:
        groups.setdefault(owner, [])
    return page(request, "overview.html", groups=groups, repositories=repositories)


async def show_owner(request: web.Request) -> web.Response:
    owner = request.match_info["owner"].lower()
    session = request[SESSION]
    if not session.may_see(owner):
        raise NotFound(owner)
    rows, repositories = await _everything(request, owner)
    if not (rows or repositories or owner in session.owners):
        raise NotFound(owner)
    return page(request, "owner.html", owner=owner, rows=rows, repositories=repositories)


async def show_functions(request: web.Request) -> web.Response:
    rows, _ = await _everything(request)
    return page(request, "functions.html", rows=sorted(rows, key=lambda row: (row.status.namespace, row.status.name)))


async def _everything(request: web.Request, owner: str = "") -> tuple[list[FunctionRow], list[RepositoryRow]]:
    """What the session may see; of one owner only, where one is named."""
    backend, session = request.app[BACKEND], request[SESSION]
    statuses, figures, runs = await asyncio.gather(
        backend.functions(), backend.figures(), backend.runs(owner=owner, limit=_RUNS)
    )
    rows = function_rows(statuses, figures, session, gateway_of(request))
    return [row for row in rows if owner in ("", row.owner)], repository_rows(runs, session)


ROUTES = (
    web.get("/ui/", show_overview),
    web.get("/ui/functions", show_functions),
    web.get("/ui/owners/{owner}", show_owner),
)
