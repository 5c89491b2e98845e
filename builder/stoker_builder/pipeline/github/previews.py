"""The one comment below a pull request that says where its functions are; it is edited, not repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.texts import MARK, preview_comment
from stoker_builder.pipeline.runs import Runs
from stoker_sdk.runs import GONE, Push, Run

log = logging.getLogger("stoker.pipeline")

_PAGES: Final = 10
_REMEMBERED: Final = 500

Pull = tuple[str, str, int]


class Previews:
    def __init__(self, api: GitHubApi, log_url: Callable[[int], str]) -> None:
        self._api = api
        self._log_url = log_url
        self._comments: dict[Pull, tuple[int, str]] = {}
        self._lock = asyncio.Lock()

    async def report(self, run: Run, runs: Runs) -> None:
        """Only the newest run of a pull request is told of. Raises `Unavailable` when it is to be told again."""
        push = run.push
        if not push.pull or any(other.id > run.id and other.push.place == push.place for other in runs.all()):
            return
        text = preview_comment(run, self._log_url(run.id))
        pull = (push.owner.lower(), push.repository.lower(), push.pull)
        async with self._lock:
            try:
                await self._bring(pull, push, text)
            except Refused as error:
                log.warning("the comment of %s is not written: %s", run.title, error)
        while len(self._comments) > _REMEMBERED:
            del self._comments[next(iter(self._comments))]

    async def _bring(self, pull: Pull, push: Push, text: str) -> None:
        number, shown = self._comments.get(pull) or await self._found(push)
        if text.strip() == shown.strip() or (not number and push.sha == GONE):
            return
        path = f"/issues/comments/{number}" if number else f"/issues/{push.pull}/comments"
        verb = "PATCH" if number else "POST"
        answer = await self._api.repository(push.owner, push.repository, verb, path, body={"body": text})
        self._comments[pull] = (int(answer["id"]), text)

    async def _found(self, push: Push) -> tuple[int, str]:
        """The comment of an earlier life of ours: number and text; zero and nothing where there is none."""
        for page in range(1, _PAGES + 1):
            path = f"/issues/{push.pull}/comments?per_page=100&page={page}"
            answer = await self._api.repository(push.owner, push.repository, "GET", path)
            for each in answer:
                if str(each.get("body", "")).startswith(MARK):
                    return int(each["id"]), str(each["body"])
            if len(answer) < 100:
                break
        return 0, ""
