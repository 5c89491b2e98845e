"""The badge of a repository, or of one of its functions: an image for a README that tells how the last run ended.

Images in a README carry no cookie. So a badge is public, or its address has a key that nobody can guess, which the
repository's page shows; a wrong key gets what a repository that does not exist gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from aiohttp import ETag, web

from stoker_gateway.pages.keys import BACKEND, CONFIG, SESSIONS
from stoker_gateway.pages.rendering import render
from stoker_sdk.basic_auth import same_text
from stoker_sdk.runs import FAILED, SUCCEEDED, Run

UNKNOWN: Final = "unknown"
_WORDS: Final = {SUCCEEDED: "passing", FAILED: "failing"}
_COLOURS: Final = {"passing": "#1a7f37", "failing": "#c4302b", UNKNOWN: "#5c6570"}
_KEY_LENGTH: Final = 20


async def show_badge(request: web.Request) -> web.Response:
    owner, name = request.match_info["owner"].lower(), request.match_info["name"].lower()
    word = UNKNOWN
    if request.app[CONFIG].public_badges or same_text(request.query.get("key", ""), _key(request, owner, name)):
        runs = await request.app[BACKEND].runs(owner=owner, repository=name)
        word = verdict(runs, request.query.get("function", ""))
    response = web.Response(
        text=render("badge.svg", word=word, colour=_COLOURS[word]),
        content_type="image/svg+xml",
        headers={"Cache-Control": "no-cache", "Cross-Origin-Resource-Policy": "cross-origin"},
    )
    response.etag = word
    if ETag(value=word) in (request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": f'"{word}"', "Cache-Control": "no-cache"})
    return response


def verdict(runs: Iterable[Run], function: str = "") -> str:
    """How the last run of the default branch ended, or what it made of one function; the newest runs come first."""
    for run in runs:
        if not run.push.default or run.push.pull or run.state not in _WORDS:
            continue
        if not function:
            return _WORDS[run.state]
        for each in run.functions:
            if each.name == function:
                return "failing" if each.state == "failed" else "passing"
        return UNKNOWN
    return UNKNOWN


def badge_path(request: web.Request, owner: str, name: str) -> str:
    """Its address on this host."""
    path = f"/badge/{quote(owner, safe='')}/{quote(name, safe='')}.svg"
    return path if request.app[CONFIG].public_badges else f"{path}?key={_key(request, owner, name)}"


def _key(request: web.Request, owner: str, name: str) -> str:
    return request.app[SESSIONS].token(f"badge {owner}/{name}")[:_KEY_LENGTH]


ROUTES = (web.get("/badge/{owner}/{name}.svg", show_badge),)
