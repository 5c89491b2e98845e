"""The pipeline's HTTP application. Proxies send it what begins with `/git/`, `/github/`, `/gitlab/`, `/system/runs`,
`/system/repositories`, `/system/owners` and `/system/seal-key`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from stoker_sdk.activity import Activity
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.errors import StokerError

log = logging.getLogger("stoker.pipeline")

_OPEN: Final = ("/github/", "/gitlab/")
"""What comes from forges proves itself by a signature, which its handler checks."""
_HEALTH: Final = "/healthz"
_REALM: Final = {"WWW-Authenticate": 'Basic realm="Stoker"'}


def make_app(routes: Sequence[web.RouteDef], auth: BasicAuth, activity: Activity) -> web.Application:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        with activity:
            return await handler(request)

    @web.middleware
    async def check_credentials(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (
            request.path.startswith(_OPEN)
            or request.path == _HEALTH
            or auth.allows(request.headers.get("Authorization", ""))
        ):
            return await handler(request)
        return web.Response(status=401, text="unauthorized\n", headers=_REALM)

    app = web.Application(middlewares=[count, answer_errors, check_credentials])
    app.add_routes([*routes, web.get(_HEALTH, _say_ok)])
    app.on_response_prepare.append(_drop_server_name)
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every exception becomes one line for the client; a bug's traceback goes to the log."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _failure(404, "not-found", f"there is nothing at {request.path[:200]!r}: check the URL")
    except web.HTTPException as error:
        return _failure(error.status, "bad-request", error.reason)
    except StokerError as error:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return _failure(error.status, error.code, str(error))
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _failure(500, "internal", "the platform failed: its log has the reason")


def answered(value: object, status: int = 200) -> web.Response:
    """Any msgspec value as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _failure(status: int, code: str, message: str) -> web.Response:
    side = "platform" if status >= 500 else "client"
    headers = {"X-Stoker-Error": f"{side}; {code}"} | ({"Retry-After": "1"} if status == 503 else {})
    return web.Response(status=status, text=message + "\n", headers=headers)


async def _say_ok(_request: web.Request) -> web.Response:
    """For probes of a cluster."""
    return web.Response(text="OK\n")


async def _drop_server_name(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)
