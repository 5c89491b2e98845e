"""What every request to the control API passes: counting, errors, clean paths, credentials."""

from __future__ import annotations

import logging
import re
import uuid
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler

from stoker_gateway.control import answers
from stoker_gateway.control.keys import CONFIG, TRAFFIC
from stoker_gateway.control.paths import clean_path
from stoker_sdk.errors import StokerError

log = logging.getLogger(__name__)

OPEN_ROUTES = frozenset({"/", "/healthz", "/openapi.json"})
"""Every other route asks for credentials, so that a route added later is never open by mistake."""

_CALL_ID = re.compile(r"[\x21-\x7e]{1,128}")


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count `/system/*` requests, from their head to the end of their answer."""
    path = _route_label(request)
    if not path.startswith("/system"):
        return await handler(request)
    began, status = monotonic(), 499  # what nginx logs when the client leaves first
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        request.app[TRAFFIC].observe(request.method, path, status, monotonic() - began)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into one line for the client; a bug's traceback goes to the log."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refusal:
        allowed = ", ".join(sorted(refusal.allowed_methods))
        message = f"method {refusal.method} is not allowed here: use {allowed}"
        return answers.failure(405, "method-not-allowed", message, {"Allow": allowed})
    except web.HTTPNotFound:
        return answers.failure(404, "not-found", f"there is nothing at {request.path[:200]!r}: check the URL")
    except StokerError as error:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return answers.failed(error)
    except Exception:
        call = _call_id(request)
        log.exception("%s %s failed, call id %s", request.method, request.path, call)
        message = f"the platform failed, call id {call}: its log has the reason"
        return answers.failure(500, "internal", message, {"X-Call-Id": call})


@web.middleware
async def redirect_unclean(request: web.Request, handler: Handler) -> web.StreamResponse:
    """301 to the cleaned path, query kept, so that one thing has one address."""
    raw, question, query = request.raw_path.partition("?")
    cleaned = clean_path(raw)
    if cleaned == raw or not raw.startswith("/"):
        return await handler(request)
    return web.Response(status=301, headers={"Location": cleaned + question + query})


@web.middleware
async def check_credentials(request: web.Request, handler: Handler) -> web.StreamResponse:
    """401 unless the route is open, or is no route at all outside `/system/` and `/ui/`."""
    header = request.headers.get("Authorization", "")
    if _needs_credentials(request) and not request.app[CONFIG].auth.allows(header):
        return answers.unauthorized()
    return await handler(request)


async def drop_server_name(request: web.Request, response: web.StreamResponse) -> None:
    """Versions of what we are built with are nobody's business."""
    response.headers.popall("Server", None)


def _needs_credentials(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    if resource is not None:
        return resource.canonical not in OPEN_ROUTES
    return request.path.startswith(("/system/", "/ui/"))


def _route_label(request: web.Request) -> str:
    resource = request.match_info.route.resource
    if resource is not None:
        return resource.canonical.partition("/{")[0].rstrip("/")
    return "/system" if request.path.startswith("/system/") else ""


def _call_id(request: web.Request) -> str:
    given = request.headers.get("X-Call-Id", "")
    return given if _CALL_ID.fullmatch(given) else str(uuid.uuid4())
