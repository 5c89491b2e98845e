"""`/system/namespaces`: which namespaces there are, and the check that the other routes share."""

from __future__ import annotations

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.keys import CONFIG
from stoker_sdk.errors import BadInput
from stoker_sdk.names import DEFAULT_NAMESPACE


def existing_namespace(request: web.Request, name: str) -> str:
    """The namespace, the default one when empty. Raises `BadInput` for one that does not exist."""
    namespaces = request.app[CONFIG].namespaces
    if (name or DEFAULT_NAMESPACE) not in namespaces:
        known = ", ".join(namespaces)
        raise BadInput(f"namespace {name[:80]!r} does not exist: there is {known}")
    return name or DEFAULT_NAMESPACE


async def list_namespaces(request: web.Request) -> web.Response:
    return answers.json(request.app[CONFIG].namespaces)


ROUTES = (web.get("/system/namespaces", list_namespaces),)
