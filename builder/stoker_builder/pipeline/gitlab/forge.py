"""GitLab, as the pipeline asks every forge; and what becomes of its push hooks.

A hook that comes twice is the same push, which is one run; one that is replayed later finds that its commit is not the
branch's head.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web
from msgspec.structs import replace

from stoker_builder.pipeline.execution import Executor
from stoker_builder.pipeline.forge import Remote, patiently
from stoker_builder.pipeline.git import check_sha
from stoker_builder.pipeline.gitlab.api import GitLabApi, Refused
from stoker_builder.pipeline.gitlab.connection import Connection, GitLabSettings, read_connection
from stoker_builder.pipeline.gitlab.events import FORGE, ID, read_push, split_project
from stoker_builder.pipeline.memory import Connected, ForgeMemory
from stoker_builder.pipeline.owners import Owners
from stoker_builder.pipeline.reports import (
    FAILURE,
    PENDING,
    SKIPPED,
    STOPPED,
    SUCCESS,
    Verdict,
    left_over,
    newer_run_of_commit,
    prefix_of,
    verdicts,
)
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.store import RunStore
from stoker_builder.pipeline.webhook_body import read_body
from stoker_sdk.errors import Conflict, NotFound, StokerError, Unauthorized, Unavailable
from stoker_sdk.ids import UserIds
from stoker_sdk.runs import GONE, QUEUED, Push, Run

log = logging.getLogger("stoker.pipeline")

_PUSH: Final = "Push Hook"
_STATES: Final = {SUCCESS: "success", FAILURE: "failed", SKIPPED: "canceled", STOPPED: "canceled"}
_UNHEARD: Final = (400, 404, 422)
"""Answers to a status: it is so already, or the commit or the project is gone."""


class GitLabForge:
    """`log_url` gives the page of a run by its id. `ids` is None where the platform is not root."""

    name = FORGE
    reports = True

    def __init__(
        self,
        settings: GitLabSettings,
        store: RunStore,
        executor: Executor,
        ids: UserIds | None,
        log_url: Callable[[int], str],
        owners: Owners,
    ) -> None:
        self._settings = settings
        self._memory = ForgeMemory(store, FORGE)
        self._executor = executor
        self._ids = ids
        self._log_url = log_url
        self._owners = owners
        self._api = GitLabApi(self._connection)
        self._told: dict[int, dict[str, str]] = {}
        self.runs: Runs

    @property
    def is_busy(self) -> bool:
        return bool(self._settings.token_file)

    def _connection(self) -> Connection | None:
        return read_connection(self._settings)

    def routes(self) -> Sequence[web.RouteDef]:
        return (web.post("/gitlab/webhook", self._receive),)

    async def head(self, push: Push) -> str:
        """Raises `Conflict` for the end of a project that is not known to have been: hooks' secrets are in many hands,
        and GitLab knows nothing of what is gone.
        """
        head = await patiently(lambda: self._head(push.details[ID], push.owner, push.repository, push.branch))
        known = await self._known(push)
        if head != GONE and known is None:
            sha = head if head == push.sha else ""
            await self._memory.note(Connected(int(push.details[ID]), push.owner, push.repository, push.branch, sha))
        elif head == push.sha == GONE:
            if known is None:
                raise Conflict(
                    f"{push.owner}/{push.repository} is not known as GitLab's project {push.details[ID]} with branch "
                    f"{push.branch}, so none of its functions is removed: `stoker remove --force` does it by hand"
                )
            await self._memory.note(replace(known, gone=True))
        return head

    async def _known(self, push: Push) -> Connected | None:
        """What is remembered of the push's project, as GitLab itself has named it."""
        known = await self._memory.by_id(int(push.details[ID]))
        names = push.owner.lower(), push.repository.lower()
        return known if known is not None and (known.names, known.branch) == (names, push.branch) else None

    async def _head(self, id: str, owner: str, name: str, branch: str) -> str:
        """The commit of the default branch; `GONE` when it is another one now, or the project has another name."""
        try:
            project = await self._api.project(id, "GET", "")
            if split_project(str(project["path_with_namespace"])) != (owner, name):
                return GONE
            if branch != project["default_branch"]:
                return GONE
            await self._owners.take(FORGE, owner, int(project["namespace"]["id"]))
            found = await self._api.project(id, "GET", f"/repository/branches/{quote(branch, safe='')}")
        except Refused as error:
            if error.gitlab_status == 404:
                return GONE
            raise
        return check_sha(str(found["commit"]["id"]))

    async def remote(self, push: Push) -> Remote:
        connection = self._connection()
        if connection is None:
            raise Unavailable("GitLab is not connected any more: start `stoker serve` with --gitlab-token-file")
        url = f"{connection.url}/{push.owner}/{push.repository}.git"
        token = base64.b64encode(f"oauth2:{connection.token}".encode()).decode()
        user = self._ids.id_for(f"git:gitlab/{push.owner.lower()}") if self._ids else None
        return Remote(url, urlsplit(url).scheme, f"Basic {token}", user)

    async def account(self, push: Push) -> str:
        return await self._owners.account(push.owner)

    async def report(self, run: Run) -> None:
        push = run.push
        if push.sha == GONE or newer_run_of_commit(run, self.runs.all()):
            return
        told = self._told.setdefault(run.id, {})
        wanted = verdicts(run, self._log_url(run.id))
        if not run.is_open:
            named = {each.context for each in wanted}
            wanted += [each for each in await self._left_over(run) if each.context not in named]
        for verdict in wanted:
            going = "pending" if run.state == QUEUED else "running"
            state = going if verdict.state == PENDING else _STATES[verdict.state]
            if told.get(verdict.context) == state:
                continue
            fields = {"state": state, "name": verdict.context, "target_url": verdict.url}
            try:
                fields["description"] = verdict.description
                await self._api.project(push.details[ID], "POST", f"/statuses/{push.sha}", fields=fields)
            except Refused as error:
                if error.gitlab_status not in _UNHEARD:
                    raise
                log.warning("run %s is not shown on GitLab: %s", run.id, error)
            told[verdict.context] = state
        if not run.is_open:
            self._told.pop(run.id, None)

    async def _left_over(self, run: Run) -> list[Verdict]:
        """Ends for what an earlier life of ours has left pending."""
        path = f"/repository/commits/{run.push.sha}/statuses?per_page=100"
        try:
            found = await self._api.project(run.push.details[ID], "GET", path)
        except Refused:
            return []
        prefix = f"{prefix_of(run)}/"
        names = [str(each["name"]) for each in found if each["status"] in ("pending", "running")]
        functions = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return [left_over(run, function, self._log_url(run.id)) for function in functions]

    async def look(self) -> None:
        """Compare the heads of all projects with what we know."""
        if not self.is_busy:
            return
        for project in await self._memory.repositories():
            try:
                head = await self._head(str(project.id), project.owner, project.name, project.branch)
            except StokerError as error:
                log.warning("%s/%s cannot be looked at: %s", project.owner, project.name, error)
                continue
            if head not in (GONE, project.sha):  # GitLab's silence removes nothing
                log.info("%s/%s is at %s: no hook said so", project.owner, project.name, head[:7])
                details = {ID: str(project.id)}
                push = Push(FORGE, project.owner, project.name, project.branch, head, details=details)
                await self._accept(push, at_head=True)

    async def _receive(self, request: web.Request) -> web.Response:
        connection = self._connection()
        if connection is None:
            raise NotFound("GitLab is not connected to this platform: start `stoker serve` with --gitlab-token-file")
        _check_token(request.headers.get("X-Gitlab-Token", ""), connection)
        body = await read_body(request)
        if request.headers.get("X-Gitlab-Event") != _PUSH:
            return web.Response(status=202, text="only push hooks start something\n")
        push = read_push(body)
        said = await self._accept(push) if push is not None else "nothing to do"
        return web.Response(status=202, text=said + "\n")

    async def _accept(self, push: Push, *, at_head: bool = False) -> str:
        self._executor.prepare()
        run = await self.runs.accept(push, at_head=at_head)
        known = await self._known(push)
        if known is not None and push.sha != GONE:
            await self._memory.note(replace(known, sha=push.sha, gone=False))
        return f"run {run.id}"


def _check_token(given: str, connection: Connection) -> None:
    """In constant time. Raises `Unauthorized`."""
    sent = given.encode("utf-8", "surrogateescape")
    matches = False
    for secret in connection.secrets:
        matches |= hmac.compare_digest(sent, secret)
    if not matches:
        raise Unauthorized("X-Gitlab-Token is missing or wrong: give GitLab the secret that the platform has")
