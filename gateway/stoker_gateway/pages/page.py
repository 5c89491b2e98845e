"""An answer with a page in it, for whoever is signed in."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from stoker_gateway.pages.keys import BACKEND, CONFIG, SESSION, SESSIONS
from stoker_gateway.pages.rendering import render
from stoker_gateway.pages.sessions import is_encrypted
from stoker_sdk import __version__


def page(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    session = request.get(SESSION)
    text = render(
        template,
        session=session,
        form_token=request.app[SESSIONS].token(session.id) if session else "",
        can_push=request.app[BACKEND].can_push,
        gateway=gateway_of(request),
        here=address_of(request),
        release=__version__,
        **values,
    )
    return web.Response(status=status, text=text, content_type="text/html")


def gateway_of(request: web.Request) -> str:
    """Where functions and the git remote are."""
    return request.app[CONFIG].gateway or address_of(request)


def address_of(request: web.Request) -> str:
    """Where the pages are, as the browser has it."""
    return f"{'https' if is_encrypted(request) else 'http'}://{request.host}"
