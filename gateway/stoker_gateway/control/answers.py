"""How the control API words its answers: JSON for what was asked, one plain line for what went wrong.

Errors follow contract section 2.1 (plain text, ending in a newline, never sniffed), and say whose fault it
is: `X-Stoker-Error: client|platform; CODE`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from stoker_sdk.errors import StokerError

ERROR_HEADER = "X-Stoker-Error"


def json(value: Any) -> web.Response:
    """200 with the value as JSON; structs and lists of structs are encoded as they are declared."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def accepted(headers: dict[str, str] | None = None) -> web.Response:
    """202 and no body: what every client of the contract takes for success (section 16, quirk 2)."""
    return web.Response(status=202, headers=headers)


def failure(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    side = "platform" if status >= 500 else "client"
    fixed = {ERROR_HEADER: f"{side}; {code}", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, text=f"{message}\n", headers=fixed | (headers or {}))


def failed(error: StokerError) -> web.Response:
    return failure(error.status, error.code, str(error))


def unauthorized() -> web.Response:
    challenge = {"WWW-Authenticate": 'Basic realm="Restricted"'}
    return failure(401, "unauthorized", "invalid credentials", challenge)
