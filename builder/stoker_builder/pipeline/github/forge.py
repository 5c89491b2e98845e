"""GitHub, as the pipeline asks every forge; and what becomes of its webhooks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from stoker_builder.pipeline.execution import Executor
from stoker_builder.pipeline.forge import Remote, patiently
from stoker_builder.pipeline.git import check_sha
from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.connection import Connections
from stoker_builder.pipeline.github.events import (
    FORGE,
    ID,
    Accept,
    Connect,
    Deed,
    Disconnect,
    Known,
    LeaveBranch,
    Rerun,
    read_event,
)
from stoker_builder.pipeline.github.missed import Missed
from stoker_builder.pipeline.github.previews import Previews
from stoker_builder.pipeline.github.reporting import Reporting
from stoker_builder.pipeline.github.webhook import Webhook
from stoker_builder.pipeline.memory import UNKNOWN, Connected, ForgeMemory
from stoker_builder.pipeline.owners import Owners
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.errors import Conflict, StokerError, Unavailable
from stoker_sdk.ids import UserIds
from stoker_sdk.runs import GONE, OWNER_ID, Push, Run, account_of

log = logging.getLogger("stoker.pipeline")

_GONE_STATUSES: Final = (404, 409, 422)
"""Of a branch's commit: no repository, an empty one, no such branch."""


Place = tuple[str, str, str, str, int]
"""`Push.place`."""


class GitHubForge:
    """`log_url` gives the page of a run by its id. `ids` is None where the platform is not root."""

    name = FORGE
    reports = True

    def __init__(
        self,
        connections: Connections,
        store: RunStore,
        executor: Executor,
        ids: UserIds | None,
        log_url: Callable[[int], str],
        owners: Owners,
        *,
        fork_previews: bool,
    ) -> None:
        self._connections = connections
        self._memory = ForgeMemory(store, FORGE)
        self._executor = executor
        self._ids = ids
        self._owners = owners
        self._fork_previews = fork_previews
        self._api = GitHubApi(lambda: connections.current)
        self._webhook = Webhook(connections, self.take)
        self._reporting = Reporting(self._api, self._is_app, log_url)
        self._previews = Previews(self._api, log_url)
        self._missed = Missed(self._api, self._memory, self.take, self.head_moved)
        self._taking = asyncio.Lock()
        self.runs: Runs

    @property
    def is_busy(self) -> bool:
        """Whether pushes that were missed have to be looked for."""
        try:
            return self._connections.current is not None
        except StokerError:
            return True  # it is to be; the log says what is wrong

    def _is_app(self) -> bool:
        connection = self._connections.current
        return connection is not None and connection.is_app

    # What a forge is asked

    def routes(self) -> Sequence[web.RouteDef]:
        return (web.post("/github/webhook", self._webhook.receive),)

    async def head(self, push: Push) -> str:
        return await patiently(lambda: self._head(push))

    async def _head(self, push: Push) -> str:
        try:
            repository = await self._api.repository(push.owner, push.repository, "GET", "")
        except Refused as error:
            if error.github_status == 404:
                return GONE
            raise
        same_name = str(repository["full_name"]).lower() == f"{push.owner}/{push.repository}".lower()
        if not same_name or str(repository["id"]) != push.details.get(ID, str(repository["id"])):
            return GONE  # renamed, or another one under its name
        await self._owners.take(FORGE, push.owner, int(repository["owner"]["id"]))
        if push.pull:
            return await self._head_of_pull(push)
        if push.branch != repository["default_branch"]:
            return GONE  # nothing of it is to be live any more
        head = await self._head_of_branch(push.owner, push.repository, push.branch)
        if head != push.sha:
            self._missed.hurry(int(repository["id"]))  # webhooks may overtake each other
        return head

    async def _head_of_pull(self, push: Push) -> str:
        pull = await self._api.repository(push.owner, push.repository, "GET", f"/pulls/{push.pull}")
        return check_sha(str(pull["head"]["sha"])) if pull["state"] == "open" else GONE

    async def _head_of_branch(self, owner: str, name: str, branch: str) -> str:
        try:
            answer = await self._api.repository(owner, name, "GET", f"/commits/{quote(f'heads/{branch}')}")
        except Refused as error:
            if error.github_status in _GONE_STATUSES:
                return GONE
            raise
        return check_sha(str(answer["sha"]))

    async def remote(self, push: Push) -> Remote:
        """The URL is ours, made of names that were checked; what a webhook says about it is never looked at."""
        connection = self._connections.current
        if connection is None:
            raise Unavailable("GitHub is not connected any more: run `stoker github setup`")
        authorization = await patiently(lambda: self._api.authorization(push.owner, push.repository))
        url = f"{connection.web_url}/{push.owner}/{push.repository}.git"
        user = self._ids.id_for(f"git:github/{push.owner.lower()}") if self._ids else None
        return Remote(url, urlsplit(url).scheme, authorization, user)

    async def account(self, push: Push) -> str:
        number = int(push.details.get(OWNER_ID, "0"))
        return account_of(FORGE, number) if number else await self._owners.account(push.owner)

    async def report(self, run: Run) -> None:
        await self._reporting.report(run, self.runs)
        await self._previews.report(run, self.runs)

    async def look(self) -> None:
        if not self.is_busy:
            return
        try:
            await self._missed.look(is_app=self._is_app())
        except StokerError:
            raise
        except Exception as error:
            log.exception("GitHub cannot be looked at")
            raise StokerError(f"an answer of GitHub's is not understood: {error}") from error

    # What webhooks ask for

    async def take(self, event: str, guid: str, body: bytes) -> str:
        """Carry out a delivery, once. Raises `BadInput`, and `Unavailable` when it could not be stored."""
        async with self._taking:
            if await self._memory.was_delivered(guid, event, body):
                return "this delivery was taken before: nothing is done"
            done = [await self._carry_out(deed) for deed in read_event(event, body, forks=self._fork_previews)]
            await self._memory.note_delivery(guid, event, body)
        return "; ".join(done) or f"{event}: nothing to do"

    async def _carry_out(self, deed: Deed) -> str:
        match deed:
            case Accept(push):
                return await self._accept(push)
            case Connect(repository, deploy):
                return await self._connect(repository, deploy=deploy)
            case Disconnect():
                return await self._disconnect(deed)
            case LeaveBranch(repository, branch):
                return await self._leave_branch(repository, branch)
            case Rerun(owner, name, sha):
                return await self._rerun(owner, name, sha)

    async def _accept(self, push: Push, *, at_head: bool = False) -> str:
        if push.sha != GONE and not self._connections.allows(push.owner):
            log.info("a push to %s/%s starts nothing: its owner is not on the list", push.owner, push.repository)
            return f"{push.owner} is not on this platform's list of owners: nothing is done"
        number = int(push.details.get(OWNER_ID, "0"))
        if push.sha == GONE and number and await self._owners.is_anothers(FORGE, push.owner, number):
            return f"the name {push.owner} belongs to another account on this platform: nothing is done"
        if push.pull and push.sha == GONE and not any(run.push.place == push.place for run in self.runs.all()):
            return "the pull request had no preview"
        self._executor.prepare()
        run = await self.runs.accept(push, at_head=at_head)
        if push.default:
            known = Known(int(push.details[ID]), push.owner, push.repository, push.branch, number)
            await self._note(_connected(known, push.sha))
        return f"run {run.id}"

    async def _note(self, now: Connected) -> None:
        """Remember the repository; what it has under an earlier name goes."""
        before = await self._memory.by_id(now.id)
        if before is not None and not before.gone and before.names != now.names:
            await self._disconnect(Disconnect(before.owner, before.name, before.id))
        await self._memory.note(now)

    async def head_moved(self, repository: Connected, branch: str, head: str) -> None:
        """The branch is at a commit that we have not heard of."""
        if not self._connections.allows(repository.owner):
            return
        push = Push(FORGE, repository.owner, repository.name, branch, head, details=_details(repository))
        log.info("%s/%s is at %s: no webhook said so", repository.owner, repository.name, head[:7])
        await self._accept(push, at_head=True)

    async def _connect(self, repository: Known, *, deploy: bool) -> str:
        named = f"{repository.owner}/{repository.name}"
        if not self._connections.allows(repository.owner):
            return f"{repository.owner} is not on this platform's list of owners: nothing is done"
        sha = "" if deploy else UNKNOWN
        await self._note(_connected(repository, sha))
        self._missed.hurry(repository.id)
        return f"{named} is connected"

    async def _disconnect(self, what: Disconnect) -> str:
        """Whatever is live of these repositories goes."""
        owner, name = what.owner, what.name
        if what.owner_id and await self._owners.is_anothers(FORGE, owner, what.owner_id):
            return f"the name {owner} belongs to another account on this platform: nothing is done"
        latest: dict[Place, Run] = {}
        for run in sorted(self.runs.all(), key=lambda run: run.id):
            push = run.push
            if push.forge != FORGE or not _is_of(push.owner, push.repository, owner, name):
                continue
            if what.id in (0, int(push.details[ID])):
                latest[push.place] = run
        places: dict[Place, Push] = {place: run.push for place, run in latest.items() if run.push.sha != GONE}
        known = [
            each
            for each in await self._memory.repositories()
            if _is_of(each.owner, each.name, owner, name) and what.id in (0, each.id)
        ]
        for each in known:
            if each.branch and each.sha not in (UNKNOWN, GONE):
                push = Push(FORGE, each.owner, each.name, each.branch, each.sha, details=_details(each))
                places.setdefault(push.place, push)
        for push in places.values():
            await self.runs.accept(_gone(push))
        for each in known:
            await self._memory.note(Connected(each.id, each.owner, each.name, gone=True))
        return f"{owner}/{name or '*'}: {len(places)} places are removed"

    async def _leave_branch(self, repository: Known, branch: str) -> str:
        push = Push(FORGE, repository.owner, repository.name, branch, GONE, details=repository.details)
        if not any(run.push.place == push.place for run in self.runs.all()):
            return f"nothing is live of {branch}"
        return f"run {(await self.runs.accept(push)).id}"

    async def _rerun(self, owner: str, name: str, sha: str) -> str:
        found = [
            run
            for run in self.runs.all()
            if (run.push.forge, run.push.sha) == (FORGE, sha)
            and _is_of(run.push.owner, run.push.repository, owner, name)
        ]
        if not found or not self._connections.allows(owner):
            return "no run of this commit is known: push it again"
        try:
            return f"run {(await self.runs.retry(found[0].id)).id}"
        except Conflict as error:
            return str(error)


def _connected(repository: Known, sha: str) -> Connected:
    return Connected(
        repository.id, repository.owner, repository.name, repository.branch, sha, owner_id=repository.owner_id
    )


def _details(repository: Connected) -> dict[str, str]:
    return Known(repository.id, repository.owner, repository.name, owner_id=repository.owner_id).details


def _gone(push: Push) -> Push:
    return Push(
        push.forge, push.owner, push.repository, push.branch, GONE, push.default, push.pull, details=push.details
    )


def _is_of(owner: str, name: str, wanted_owner: str, wanted_name: str) -> bool:
    """Whether a repository is meant, by names in any case; an empty wanted name means all of the owner's."""
    return owner.lower() == wanted_owner.lower() and wanted_name.lower() in ("", name.lower())
