"""The process of the pages, on a unix socket that it is given.

    python -m stoker_gateway.pages SETTINGS-JSON

It is started when somebody opens a page, and ends by itself when nobody has for some minutes: a platform at which
nobody looks pays nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from stoker_gateway.pages.app import make_app
from stoker_gateway.pages.backend import Backend
from stoker_gateway.pages.github import GitHub
from stoker_gateway.pages.keys import PagesConfig
from stoker_gateway.pages.sessions import Sessions
from stoker_sdk.activity import Activity, until_idle
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.github_app import stored_app
from stoker_sdk.processes import die_with_parent, say_ready

log = logging.getLogger("stoker.pages")

_MAX_HEAD: Final = 64 * 1024


class PagesSettings(msgspec.Struct, frozen=True):
    """What the supervisor tells the pages. `pipeline` is an address as proxies have it, empty where functions cannot
    come by git; `host` is empty where the pages have none of their own (as `gateway` then), `github_client_id` where
    there is no OAuth application of the operator's: then people sign in by the App that `stoker github setup` made for
    this host, if it did.
    """

    data_dir: str
    listen_fd: int
    ready_fd: int
    control_socket: str
    pipeline: str = ""
    pipeline_stays: bool = False
    """Whether it runs anyhow, so that asking it costs nothing."""
    proxy_socket: str = ""
    host: str = ""
    gateway: str = ""
    public_badges: bool = False
    github_client_id: str = ""
    github_secret_file: str = ""
    github_api_url: str = ""
    idle_seconds: float = 300.0


async def serve(settings: PagesSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    data = DataDir(Path(settings.data_dir))
    password = data.password.read_text().strip()
    activity = Activity()
    backend = Backend(
        f"unix:{settings.control_socket}",
        settings.pipeline,
        password,
        has_git=lambda: settings.pipeline_stays or data.git.is_dir(),
        proxy=f"unix:{settings.proxy_socket}" if settings.proxy_socket else "",
    )
    config = PagesConfig(BasicAuth(ADMIN, password), settings.host, settings.gateway, settings.public_badges)
    runner = web.AppRunner(
        make_app(config, backend, Sessions(password, data.ended_sessions), activity, lambda: _github(settings, data)),
        access_log=None,
        shutdown_timeout=1.0,
        handler_cancellation=True,
        max_line_size=_MAX_HEAD,
        max_field_size=_MAX_HEAD,
    )
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=settings.listen_fd)).start()
    say_ready(settings.ready_fd, b"ready")
    await until_idle(stop, lambda: activity.has_rested(settings.idle_seconds), settings.idle_seconds)
    await runner.cleanup()
    await backend.close()


def _github(settings: PagesSettings, data: DataDir) -> GitHub | None:
    if settings.github_client_id:
        secret = Path(settings.github_secret_file).read_text().strip()
        return GitHub(settings.github_client_id, secret, settings.github_api_url)
    if not settings.host:
        return None
    try:
        app = stored_app(data)
    except StokerError as error:
        log.warning("nobody can sign in with GitHub: %s", error)
        return None
    if app is None or app.pages_host != settings.host:
        return None
    return GitHub(app.client_id, app.client_secret, app.api_url)


def main() -> None:
    die_with_parent()
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s pages %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.argv[1], type=PagesSettings)
    try:
        asyncio.run(serve(settings))
    except StokerError as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
