"""What every request of a page passes: headers that tie a browser's hands, where it came from, who is signed in."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from stoker_gateway.pages.keys import CONFIG, SESSION, SESSIONS
from stoker_gateway.pages.page import page
from stoker_gateway.pages.sessions import is_encrypted
from stoker_sdk.errors import NotFound, StokerError

log = logging.getLogger("stoker.pages")

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NO_ROUTE: Final = ""
_OPEN: Final = (
    *("/ui/sign-in", "/ui/github", "/ui/github/back", "/ui/static/{name}", "/badge/{owner}/{name}.svg"),
    _NO_ROUTE,
)
"""Routes for those who are not signed in; a route that is added later is not among them by mistake."""
_NOT_PAGES: Final = ("/ui/static/{name}", "/ui/runs/{id}/events", "/badge/{owner}/{name}.svg")
NOTHING: Final = "There is nothing here, or nothing that you may see."


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every exception becomes a page that says what to do; a bug's traceback goes to the log."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _failure(request, 404, NOTHING)
    except NotFound:
        return _failure(request, 404, NOTHING)  # the same for what is somebody else's
    except web.HTTPRedirection:
        raise
    except web.HTTPException as error:
        return _failure(request, error.status, error.text or error.reason)
    except StokerError as error:
        return _failure(request, error.status, str(error))
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _failure(request, 500, "The platform failed: its log has the reason.")


@web.middleware
async def stay_on_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where the pages have a host of their own, they are nowhere else: it has no functions, so no foreign script."""
    host = request.app[CONFIG].host
    name, colon, port = request.host.partition(":")
    if host and name.lower() != host:
        raise web.HTTPFound(f"{'https' if is_encrypted(request) else 'http'}://{host}{colon}{port}{request.raw_path}")
    return await handler(request)


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page is opened by a person, not fetched or framed by a script; a form comes from a page of ours."""
    dest = request.headers.get("Sec-Fetch-Dest", "document")
    if request.method in ("GET", "HEAD"):
        if dest != "document" and _route(request) not in _NOT_PAGES:
            raise web.HTTPForbidden(text="Pages are opened, not fetched: use the API for programs.")
        return await handler(request)
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    if site != "same-origin" or (origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()):
        raise web.HTTPForbidden(text="This form was sent from another site: open the page here, and send it again.")
    return await handler(request)


@web.middleware
async def ask_to_sign_in(request: web.Request, handler: Handler) -> web.StreamResponse:
    sessions = request.app[SESSIONS]
    session = sessions.find(request)
    if session is not None:
        request[SESSION] = session
    if _route(request) in _OPEN:
        return await handler(request)
    if session is None:
        if request.method == "POST":
            raise web.HTTPForbidden(text="You are not signed in any more: sign in, and do it again.")
        raise web.HTTPFound(f"/ui/sign-in?next={quote(request.path_qs, safe='/')}")
    if request.method == "POST":
        form = await request.post()
        if not sessions.is_token(str(form.get("token", "")), session.id):
            raise web.HTTPForbidden(text="This form is out of date: open its page again, and send it from there.")
    return await handler(request)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else _NO_ROUTE


def _failure(request: web.Request, status: int, reason: str) -> web.Response:
    return page(request, "error.html", status=status, code=status, reason=reason)
