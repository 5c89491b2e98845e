"""`/healthz`, `/` and, where the pages are switched off, `/ui/`: what is there for probes and browsers."""

from __future__ import annotations

from aiohttp import web

from stoker_gateway.control import answers


async def tell_health(request: web.Request) -> web.Response:
    return web.Response(text="OK")


async def go_to_dashboard(request: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "/ui/"})


async def show_dashboard(request: web.Request) -> web.Response:
    return answers.failure(
        404, "not-found", "the pages are switched off here (--no-pages): use the command line, `stoker list`"
    )


ROUTES = (
    web.get("/healthz", tell_health),
    web.get("/", go_to_dashboard),
    web.get("/ui/{rest:.*}", show_dashboard),
)
