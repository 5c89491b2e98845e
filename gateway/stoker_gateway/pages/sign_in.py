"""Signing in with the platform's password, and signing out.

The form of somebody who is not signed in carries a token, too, tied to a cookie: nobody can be signed in by a foreign
site without noticing.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from aiohttp import web

from stoker_gateway.pages.keys import CONFIG, GITHUB, SESSION, SESSIONS
from stoker_gateway.pages.page import page
from stoker_gateway.pages.sessions import drop_session, is_encrypted, set_cookie, set_session
from stoker_sdk.basic_auth import same_text

_NONCE: Final = "stoker-form"
_NONCE_SECONDS: Final = 3600
_NEXT: Final = re.compile(r"/ui/[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*")
_PORT: Final = re.compile(r":[0-9]*$")
_LOCAL: Final = re.compile(r"127\.0\.0\.1|\[::1\]|(.+\.)?localhost")
"""Hosts that browsers look for on their own machine."""


async def show(request: web.Request) -> web.Response:
    if SESSION in request:
        raise web.HTTPFound(next_page(request.query.get("next", "")))
    return _form(request, request.query.get("next", ""))


async def sign_in(request: web.Request) -> web.Response:
    form = await request.post()
    sessions, nonce = request.app[SESSIONS], request.cookies.get(_NONCE, "")
    target = str(form.get("next", ""))
    if not nonce or not sessions.is_token(str(form.get("token", "")), _purpose(nonce)):
        return _form(request, target, "The form was out of date: send it again. Signing in needs cookies.", 403)
    auth = request.app[CONFIG].auth
    right = same_text(str(form.get("user", "")).strip(), auth.user)
    if not (same_text(str(form.get("password", "")), auth.password) and right):
        return _form(request, target, "User or password is wrong.", 403)
    return signed_in(request, sessions.begin(auth.user, is_admin=True), target)


def signed_in(request: web.Request, text: str, target: str) -> web.Response:
    """To the page that was asked for first, with the session's cookie."""
    response = web.Response(status=303, headers={"Location": next_page(target)})
    set_session(request, response, text)
    return response


async def sign_out(request: web.Request) -> web.Response:
    request.app[SESSIONS].end(request[SESSION])
    response = web.Response(status=303, headers={"Location": "/ui/sign-in"})
    drop_session(request, response)
    return response


def next_page(wanted: str) -> str:
    """Where to go on: a page of ours, whatever somebody wrote into a link."""
    return wanted if _NEXT.fullmatch(wanted) and "//" not in wanted else "/ui/"


def _form(request: web.Request, target: str, problem: str = "", status: int = 200) -> web.Response:
    nonce = request.cookies.get(_NONCE, "") or secrets.token_urlsafe(16)
    response = page(
        request,
        "sign_in.html",
        status=status,
        problem=problem,
        target=next_page(target),
        sign_in_token=request.app[SESSIONS].token(_purpose(nonce)),
        has_github=request.app[GITHUB]() is not None,
        is_readable=not is_encrypted(request) and not _LOCAL.fullmatch(_PORT.sub("", request.host)),
    )
    set_cookie(request, response, _NONCE, nonce, _NONCE_SECONDS)
    return response


def _purpose(nonce: str) -> str:
    return f"sign in {nonce}"


ROUTES = (
    web.get("/ui/sign-in", show),
    web.post("/ui/sign-in", sign_in),
    web.post("/ui/sign-out", sign_out),
)
