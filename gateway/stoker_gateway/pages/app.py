"""The pages as one aiohttp application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from stoker_gateway.pages import badge, function, github, guard, overview, repository, run, sign_in
from stoker_gateway.pages.backend import Backend
from stoker_gateway.pages.keys import BACKEND, CONFIG, GITHUB, SESSIONS, PagesConfig
from stoker_gateway.pages.rendering import STATIC, static_file
from stoker_gateway.pages.sessions import Sessions
from stoker_sdk.activity import Activity

_MAX_FORM: Final = 64 * 1024
_FOR_EVER: Final = "public, max-age=31536000, immutable"


async def show_static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    return web.Response(
        body=static_file(name), content_type=STATIC[name], charset="utf-8", headers={"Cache-Control": _FOR_EVER}
    )


async def go_to_overview(request: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "/ui/"})


def make_app(
    config: PagesConfig,
    backend: Backend,
    sessions: Sessions,
    activity: Activity,
    oauth: Callable[[], github.GitHub | None] = lambda: None,
) -> web.Application:
    """The caller closes `backend`. `oauth` gives what people sign in with GitHub by, each time that somebody does."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        with activity:
            return await handler(request)

    app = web.Application(
        middlewares=[count, guard.answer_errors, guard.stay_on_host, guard.check_origin, guard.ask_to_sign_in],
        client_max_size=_MAX_FORM,
    )
    app[CONFIG], app[BACKEND], app[SESSIONS], app[GITHUB] = config, backend, sessions, oauth
    app.add_routes(
        [
            web.get("/", go_to_overview),
            web.get("/ui", go_to_overview),
            web.get("/ui/static/{name}", show_static),
            *sign_in.ROUTES,
            *github.ROUTES,
            *overview.ROUTES,
            *repository.ROUTES,
            *run.ROUTES,
            *function.ROUTES,
            *badge.ROUTES,
        ]
    )
    app.on_response_prepare.append(guard.set_headers)
    return app
