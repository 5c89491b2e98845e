"""The platform's own remote as a forge: `/git/OWNER/REPO`, and what the pipeline asks of every forge."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from stoker_builder.pipeline.app import answered
from stoker_builder.pipeline.execution import Executor
from stoker_builder.pipeline.forge import Remote
from stoker_builder.pipeline.own import repositories
from stoker_builder.pipeline.own.http_backend import RECEIVE, SERVICES, HttpBackend, find_http_backend
from stoker_builder.pipeline.own.quota import check_quota
from stoker_builder.pipeline.own.receive import FORGE, accept_head, talk_to_hook
from stoker_builder.pipeline.own.repositories import Repositories, Repository
from stoker_builder.pipeline.runs import Runs
from stoker_builder.tree import remove_tree
from stoker_sdk.data_dir import ADMIN
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.runs import GONE, Push, RemovedRepository, RepositoryName, Run

log = logging.getLogger("stoker.pipeline")


@dataclass(frozen=True)
class OwnSettings:
    """`folder` holds repositories and our hook; `python` runs the hook under any user id, with `variables`. A push's
    pack may have `max_push` bytes, and all repositories of an owner `max_repositories`.
    """

    folder: Path
    python: Path
    variables: Mapping[str, str]
    max_push: int
    max_repositories: int


class OwnForge:
    """The repositories of this platform. `runs` is set by whoever makes both."""

    name = FORGE
    reports = False

    def __init__(self, settings: OwnSettings, store: Repositories, executor: Executor) -> None:
        self._settings = settings
        self._repositories = store
        self._hooks = settings.folder / "hooks"
        self._executor = executor
        self._backend: HttpBackend | None = None
        self._receiving: set[asyncio.Task[None]] = set()
        self._looked = self._doubtful = False
        self.runs: Runs

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/git/{owner}/{name}/{rest:info/refs}", self._serve),
            web.post("/git/{owner}/{name}/{rest:git-upload-pack|git-receive-pack}", self._serve),
            web.get("/system/repositories", self._list),
            web.delete("/system/repositories/{owner}/{name}", self._remove),
        )

    @property
    def is_busy(self) -> bool:
        return bool(self._receiving)

    async def head(self, push: Push) -> str:
        return await repositories.head_of(self._of(push), push.branch)

    async def remote(self, push: Push) -> Remote:
        repository = self._of(push)
        return Remote(f"file://{repository.path}", "file", user=repository.user)

    async def account(self, push: Push) -> str:
        return ""  # the platform's administrator pushes here, for whomever

    async def report(self, run: Run) -> None:
        """Whoever pushed sees it; nobody else waits for it."""

    async def look(self) -> None:
        """Pushes and removals that were cut short before their run was stored: by the end of an earlier process, or a
        broker that stayed away.
        """
        if self._looked and not self._doubtful:
            return
        self._looked, self._doubtful = True, False
        for retired in self._repositories.retired():
            await self._bury(retired)
        for repository in self._repositories.all():
            try:
                branch = await repositories.default_branch(repository)
                head = await repositories.head_of(repository, branch)
                if head and head != await repositories.accepted(repository):
                    await accept_head(self.runs, repository, branch, ADMIN)
            except StokerError as error:
                log.warning("%s cannot be looked at: %s", repository, error)
                self._doubtful = True

    def _of(self, push: Push) -> Repository:
        return self._repositories.find(push.owner, push.repository)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        repository = self._repositories.find(request.match_info["owner"], request.match_info["name"])
        rest = request.match_info["rest"]
        service = request.query.get("service", "") if rest == "info/refs" else rest
        if service not in SERVICES:
            raise NotFound("this remote speaks git's smart protocol only: use git 1.6.6 or newer")
        if service == RECEIVE:
            await check_quota(repository, self._settings.max_repositories)
            self._executor.prepare()
            await self._repositories.make(repository)
        elif not repository.exists:
            raise NotFound(f"there is no repository {repository} here: the first push makes it")
        backend = await self._ready_backend()
        hook = await self._open_hook(repository, ADMIN) if rest == RECEIVE else None
        return await backend.serve(request, repository, rest, ADMIN, hook)

    async def _open_hook(self, repository: Repository, by: str) -> socket.socket:
        """A descriptor for git's hook; whoever talks at our end goes on when the client leaves."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        task = asyncio.create_task(self._talk(repository, by, reader, writer), name=f"push to {repository}")
        self._receiving.add(task)
        task.add_done_callback(self._receiving.discard)
        return theirs

    async def _talk(
        self, repository: Repository, by: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._doubtful = True
        try:
            await talk_to_hook(repository, self.runs, by, reader, writer)
        finally:
            writer.close()

    async def _ready_backend(self) -> HttpBackend:
        if self._backend is None:
            process = await asyncio.create_subprocess_exec(
                "git", "--exec-path", stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ.get("PATH", os.defpath)}
            )
            out, _ = await process.communicate()
            program = find_http_backend(out.decode().strip())
            self._write_hook()
            self._backend = HttpBackend(program, self._hooks, self._settings.max_push, self._settings.variables)
        return self._backend

    def _write_hook(self) -> None:
        """Every user can run it, and nobody but the platform change it."""
        self._hooks.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._hooks.parent.chmod(0o711)
        self._hooks.chmod(0o755)
        script = self._hooks / "hook.py"
        write_whole(script, (Path(__file__).parent / "hook.py").read_bytes(), 0o644)
        line = f"exec {shlex.quote(str(self._settings.python))} -IS {shlex.quote(str(script))}"
        write_whole(self._hooks / "proc-receive", f"#!/bin/sh\n{line}\n".encode(), 0o755)

    async def _list(self, request: web.Request) -> web.Response:
        return answered([RepositoryName(each.owner, each.name) for each in self._repositories.all()])

    async def _remove(self, request: web.Request) -> web.Response:
        """The repository goes at once, its functions by a run."""
        repository = self._repositories.find(request.match_info["owner"], request.match_info["name"])
        run = await self._bury(self._repositories.retire(repository))
        return answered(RemovedRepository(run.id), status=202)

    async def _bury(self, retired: Repository) -> Run:
        """A retired repository is deleted when the run that removes its functions is stored."""
        branch = await repositories.default_branch(retired)
        run = await self.runs.accept(Push(FORGE, retired.owner, retired.name, branch, GONE, by=ADMIN))
        await asyncio.to_thread(remove_tree, retired.path)
        return run
