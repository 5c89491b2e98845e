"""The parts that every page can reach, by typed key, in the application or the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from stoker_gateway.pages.access import Session
from stoker_gateway.pages.backend import Backend
from stoker_gateway.pages.sessions import Sessions
from stoker_sdk.basic_auth import BasicAuth

if TYPE_CHECKING:
    from stoker_gateway.pages.github import GitHub


@dataclass(frozen=True)
class PagesConfig:
    """`host` is the one that the pages are served on, empty for any; `gateway` is where functions are then, empty for
    where the pages are. `public_badges`: no key is asked for.
    """

    auth: BasicAuth
    host: str = ""
    gateway: str = ""
    public_badges: bool = False


CONFIG: web.AppKey[PagesConfig] = web.AppKey("config", PagesConfig)
BACKEND: web.AppKey[Backend] = web.AppKey("backend", Backend)
SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)
GITHUB: web.AppKey[Callable[[], GitHub | None]] = web.AppKey("github")
"""By what people sign in with GitHub now, or None: it may come while we run."""
SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)
"""Who asks; pages which need nobody to be signed in do not look at it."""
