"""`/system/runs` where there is no git pipeline. Where there is one, proxies send these requests there."""

from __future__ import annotations

from aiohttp import web

from stoker_sdk.errors import NotFound


async def refuse(request: web.Request) -> web.StreamResponse:
    raise NotFound("pushes are switched off here: start without --no-git and --no-async, on a cluster with --pipeline")


ROUTES = (
    web.get("/system/runs", refuse),
    web.get("/system/runs/{id}", refuse),
    web.delete("/system/runs/{id}", refuse),
    web.get("/system/runs/{id}/log", refuse),
    web.post("/system/runs/{id}/retry", refuse),
    web.get("/system/repositories", refuse),
    web.delete("/system/repositories/{owner}/{name}", refuse),
    web.get("/system/owners", refuse),
    web.delete("/system/owners/{owner}", refuse),
    web.get("/system/seal-key", refuse),
)
