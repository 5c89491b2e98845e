"""The page of one repository: what is live, its branches, its runs, its badge."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from stoker_gateway.pages.badge import badge_path
from stoker_gateway.pages.keys import BACKEND, SESSION
from stoker_gateway.pages.page import gateway_of, page
from stoker_gateway.pages.rows import function_rows
from stoker_sdk.errors import NotFound
from stoker_sdk.runs import Run


async def show_repository(request: web.Request) -> web.Response:
    owner, name = request.match_info["owner"].lower(), request.match_info["name"].lower()
    backend, session = request.app[BACKEND], request[SESSION]
    if not session.may_see(owner):
        raise NotFound(f"{owner}/{name}")
    statuses, figures, runs = await asyncio.gather(
        backend.functions(), backend.figures(), backend.runs(owner=owner, repository=name)
    )
    runs = [run for run in runs if session.may_see_run(run)]
    rows = function_rows(statuses, figures, session, gateway_of(request))
    rows = [row for row in rows if (row.owner, row.repository) == (owner, name)]
    if not (rows or runs):
        raise NotFound(f"{owner}/{name}")
    return page(
        request,
        "repository.html",
        owner=owner,
        name=name,
        rows=rows,
        runs=runs,
        branches=newest_by_branch(runs),
        badge=badge_path(request, owner, name),
    )


def newest_by_branch(runs: Iterable[Run]) -> list[Run]:
    """The newest run of each branch and pull request, of runs of which the newest come first."""
    found: dict[tuple[str, str, str, str, int], Run] = {}
    for run in runs:
        found.setdefault(run.push.place, run)
    return list(found.values())


ROUTES = (web.get("/ui/repositories/{owner}/{name}", show_repository),)
