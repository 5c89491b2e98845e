"""The pipeline process: runs, and the HTTP routes that lead to them, on a socket that it is given.

    python -m stoker_builder.pipeline SETTINGS-JSON

It is started when somebody asks for it, or where runs may be open, and ends by itself when it has had nothing to do for
some minutes, unless it is one that stays. It ends with its supervisor; the runs that were going go on in its next life.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.api import RunsApi
from stoker_builder.pipeline.app import make_app
from stoker_builder.pipeline.execution import ExecutionSettings, Executor
from stoker_builder.pipeline.forge import Forge
from stoker_builder.pipeline.github.connection import Connections, GitHubSettings
from stoker_builder.pipeline.github.forge import GitHubForge
from stoker_builder.pipeline.gitlab.connection import GitLabSettings
from stoker_builder.pipeline.gitlab.forge import GitLabForge
from stoker_builder.pipeline.own.forge import OwnForge, OwnSettings
from stoker_builder.pipeline.own.repositories import Repositories
from stoker_builder.pipeline.owners import Owners
from stoker_builder.pipeline.policy import Limits
from stoker_builder.pipeline.reporter import Reporter
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.activity import Activity, until_idle
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.data_dir import ADMIN, DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.ids import UserIds
from stoker_sdk.processes import die_with_parent, say_ready

log = logging.getLogger("stoker.pipeline")

_LOOK_SECONDS: Final = 30.0
_MAX_HEAD: Final = 64 * 1024


class PipelineSettings(msgspec.Struct, frozen=True):
    """What the supervisor tells the pipeline. Functions go into `namespace`, into the default one when that is empty.
    `first_id` is 0 where the platform is not root; `python` runs the hook under any user id, with `library_path` as
    its LD_LIBRARY_PATH.
    """

    data_dir: str
    listen_fd: int
    ready_fd: int
    broker_file: str
    gateway: str
    public_url: str
    password_file: str
    seal_key: str
    python: str
    namespace: str = ""
    library_path: str = ""
    first_id: int = 0
    id_count: int = 0
    runs_at_once: int = 2
    runs_per_owner: int = 1
    max_push: int = 256 * 1024 * 1024
    max_repositories: int = 4 * 1024**3
    ready_seconds: float = 120.0
    """For which a run waits for a function to get ready."""
    idle_seconds: float = 300.0
    """0: it stays."""
    github: GitHubSettings = GitHubSettings()
    gitlab: GitLabSettings = GitLabSettings()
    images: ImageSettings = ImageSettings()


async def serve(settings: PipelineSettings) -> None:
    data = DataDir(Path(settings.data_dir))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    password_file, seal_key = Path(settings.password_file), Path(settings.seal_key)
    executor = Executor(
        ExecutionSettings(
            data.git / "checkouts",
            settings.gateway,
            password_file,
            seal_key,
            settings.public_url,
            settings.images,
            settings.namespace,
            settings.ready_seconds,
        )
    )
    ids = UserIds(data.ids, settings.first_id, settings.id_count) if settings.first_id else None
    variables = {"LD_LIBRARY_PATH": settings.library_path} if settings.library_path else {}
    own = OwnForge(
        OwnSettings(data.git, Path(settings.python), variables, settings.max_push, settings.max_repositories),
        Repositories(data.git / "repositories", ids),
        executor,
    )
    store = RunStore(Path(settings.broker_file))

    def log_url(id: int) -> str:
        return f"{settings.public_url}/ui/runs/{id}"

    owners = Owners(store)
    connections, forks = Connections(settings.github, data), settings.github.fork_previews
    github = GitHubForge(connections, store, executor, ids, log_url, owners, fork_previews=forks)
    gitlab = GitLabForge(settings.gitlab, store, executor, ids, log_url, owners)
    forges: dict[str, Forge] = {own.name: own, github.name: github, gitlab.name: gitlab}
    limits = Limits(settings.runs_at_once, settings.runs_per_owner)
    runs = own.runs = github.runs = gitlab.runs = Runs(store, forges, executor, limits)
    reporter = Reporter(runs, forges)
    activity = Activity()
    await runs.start()
    reporter.take_up()
    auth = _auth(password_file)
    api = RunsApi(runs, seal_key)
    routes = [*api.routes(), *owners.routes(), *(route for forge in forges.values() for route in forge.routes())]
    runner = web.AppRunner(
        make_app(routes, auth, activity),
        access_log=None,
        shutdown_timeout=3.0,
        handler_cancellation=True,
        max_line_size=_MAX_HEAD,
        max_field_size=_MAX_HEAD,
    )
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=settings.listen_fd)).start()
    looking = asyncio.create_task(_look(forges), name="look for missed pushes")
    gc.collect()
    gc.freeze()
    say_ready(settings.ready_fd, b"ready")

    def is_idle() -> bool:
        busy = not settings.idle_seconds or any(forge.is_busy for forge in forges.values())
        return activity.has_rested(settings.idle_seconds) and not busy and runs.is_idle and reporter.is_idle

    await until_idle(stop, is_idle, settings.idle_seconds or _LOOK_SECONDS)
    looking.cancel()
    await runner.cleanup()
    await reporter.close()
    await executor.close()
    await runs.close()


def _auth(password_file: Path) -> BasicAuth:
    return BasicAuth(ADMIN, password_file.read_text().strip())


async def _look(forges: dict[str, Forge]) -> None:
    while True:
        for forge in forges.values():
            try:
                await forge.look()
            except StokerError as error:
                log.warning("%s cannot be looked at: %s", forge.name, error)
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> None:
    die_with_parent()
    os.umask(0o022)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s pipeline %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.argv[1], type=PipelineSettings)
    try:
        asyncio.run(serve(settings))  # not uvloop: it starts no process under another user id
    except StokerError as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
