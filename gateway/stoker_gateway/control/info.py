"""`/system/info`: what runs here, in which release. No field is ever null: `faas-cli version` would crash."""

from __future__ import annotations

import platform

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.keys import CONFIG, PROVIDER


async def show_info(request: web.Request) -> web.Response:
    config = request.app[CONFIG]
    version = {"release": config.release, "sha": config.commit}
    provider = {"provider": "stoker", "version": version, "orchestration": request.app[PROVIDER].name}
    return answers.json({"provider": provider, "version": version, "arch": platform.machine()})


ROUTES = (web.get("/system/info", show_info),)
