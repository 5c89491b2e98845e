"""What a function says of its public addresses: `routes` and `visibility`. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.names import check_path

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_ROUTES: Final = 100
"""Of one function."""

_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")


class AskedRoute(msgspec.Struct, omit_defaults=True, frozen=True):
    """One public address: a host, a path's beginning, or both. No methods means all."""

    host: str = ""
    path: str = ""
    methods: list[str] = []


def check_route(route: AskedRoute) -> None:
    """Raises `BadInput`."""
    if not route.host and not route.path:
        raise BadInput("a route needs a host, a path, or both")
    if route.host:
        check_host(route.host)
    if route.path:
        check_path(route.path)
        if "//" in route.path or "%" in route.path:
            raise BadInput(f"path {route.path[:60]!r} is not allowed: it is compared as it is sent, without // and %")
    for method in route.methods:
        if method not in METHODS:
            raise BadInput(f"method {method[:20]!r} is not one of {', '.join(METHODS)}")


def check_host(host: str) -> None:
    """A host name in lower case, perhaps with `*.` for its first label. Raises `BadInput`."""
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise BadInput(f"host {host[:60]!r} is not a host name: write it in lower case, without scheme and port")


def check_visibility(text: str) -> None:
    """Who may call the function. Raises `BadInput`."""
    if text not in ("", "public", "private"):
        raise BadInput(f"visibility is {text[:40]!r}: write public, or private for calls from inside only")
