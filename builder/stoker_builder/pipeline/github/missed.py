"""Pushes that no webhook told of: deliveries that failed, and branches that are elsewhere than we know.

The heads are asked for with what we know as the ETag; an answer of "as before" costs nothing of GitHub's limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from stoker_builder.pipeline.git import check_sha
from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.webhook import Take
from stoker_builder.pipeline.memory import UNKNOWN, Connected, ForgeMemory
from stoker_sdk.errors import BadInput, StokerError, Unavailable

log = logging.getLogger("stoker.pipeline")

_PAGES: Final = 10
_PER_PAGE: Final = 100
_AT_ONCE: Final = 4
_DONE: Final = range(200, 300)

HeadMoved = Callable[[Connected, str, str], Awaitable[None]]
"""Given the repository, its default branch, and the commit that this is at."""


class Missed:
    def __init__(self, api: GitHubApi, memory: ForgeMemory, take: Take, head_moved: HeadMoved) -> None:
        self._api = api
        self._memory = memory
        self._take = take
        self._head_moved = head_moved
        self._newest_delivery = 0
        self._soon: set[asyncio.Task[None]] = set()

    def hurry(self, id: int) -> None:
        """Look at this repository now: it is new, or its head is not what was said."""
        task = asyncio.create_task(self._look_soon(id), name=f"look at GitHub's repository {id}")
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def _look_soon(self, id: int) -> None:
        try:
            repository = await self._memory.by_id(id)
            if repository is not None and not repository.gone:
                await self._look_at(repository)
        except StokerError as error:
            log.warning("GitHub's repository %s cannot be looked at: %s", id, error)

    async def look(self, *, is_app: bool) -> None:
        """Raises `StokerError`; what was found before that is carried out."""
        if is_app:
            await self._look_at_deliveries()
        await self._look_at_heads()

    async def _look_at_deliveries(self) -> None:
        """Those that GitHub could not make are fetched from it, the oldest first. What is newer than the newest that
        was seen is looked at; and everything that GitHub remembers, at the first time.
        """
        failed: dict[str, dict[str, Any]] = {}
        done: set[str] = set()
        newest, before = self._newest_delivery, ""
        for _ in range(_PAGES):
            path = f"/app/hook/deliveries?per_page={_PER_PAGE}" + (f"&cursor={before}" if before else "")
            page = await self._api.app("GET", path)
            for each in page:
                newest = max(newest, int(each["id"]))
                known = done if int(each["status_code"]) in _DONE else None
                if known is not None:
                    known.add(str(each["guid"]))
                elif int(each["id"]) > self._newest_delivery:
                    failed.setdefault(str(each["guid"]), each)
            if len(page) < _PER_PAGE or int(page[-1]["id"]) <= self._newest_delivery:
                break
            before = str(page[-1]["id"])
        for guid, delivery in sorted(failed.items(), key=lambda item: int(item[1]["id"])):
            if guid not in done and not await self._memory.knows(guid):
                await self._fetch(guid, delivery)
        self._newest_delivery = newest

    async def _fetch(self, guid: str, delivery: dict[str, Any]) -> None:
        whole = await self._api.app("GET", f"/app/hook/deliveries/{int(delivery['id'])}")
        body = msgspec.json.encode(whole["request"]["payload"])
        try:
            said = await self._take(str(whole["event"]), guid, body)
        except BadInput as error:
            said = f"it cannot be used: {error}"
        log.info("the delivery %s did not arrive and was fetched: %s", guid[:60], said)

    async def _look_at_heads(self) -> None:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def look_at(repository: Connected) -> None:
            async with limit:
                await self._look_at(repository)

        found = await asyncio.gather(
            *(look_at(each) for each in await self._memory.repositories()), return_exceptions=True
        )
        for error in found:
            if isinstance(error, Unavailable):
                raise error
            if isinstance(error, BaseException):
                log.warning("a repository of GitHub's cannot be looked at: %s", error)

    async def _look_at(self, repository: Connected) -> None:
        try:
            branch = repository.branch or await self._default_branch(repository)
            head = await self._head(repository, branch)
        except Refused as error:
            # Gone, or hidden from our token. Only GitHub's word removes functions, not its silence.
            log.debug("%s/%s cannot be seen: %s", repository.owner, repository.name, error)
            return
        if repository.sha == UNKNOWN:
            await self._memory.note(msgspec.structs.replace(repository, branch=branch, sha=head))
        elif head and head != repository.sha:
            await self._head_moved(repository, branch, head)

    async def _default_branch(self, repository: Connected) -> str:
        answer = await self._api.repository(repository.owner, repository.name, "GET", "")
        return str(answer["default_branch"])

    async def _head(self, repository: Connected, branch: str) -> str:
        """The commit of the branch; empty if it has none."""
        path = f"/commits/{quote(f'heads/{branch}')}"
        headers = {"Accept": "application/vnd.github.sha", "If-None-Match": f'"{repository.sha}"'}
        try:
            answer = await self._api.repository(repository.owner, repository.name, "GET", path, headers=headers)
        except Refused as error:
            if error.github_status in (409, 422):
                return ""
            raise
        return check_sha(str(answer["data"])) if answer else repository.sha
