"""Decides what each commit is told of its runs: only what is new, and of two runs of one commit by the newer one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.boards import Board, CheckBoard, StatusBoard
from stoker_builder.pipeline.reports import PENDING, Verdict, left_over, newer_run_of_commit, verdicts
from stoker_builder.pipeline.runs import Runs
from stoker_sdk.runs import GONE, Push, Run

log = logging.getLogger("stoker.pipeline")

_REMEMBERED: Final = 500
"""Commits, of which we remember what they show."""
_GIVEN_UP: Final = 24 * 3600.0
"""Seconds after which a report that GitHub refuses is not tried again."""

Commit = tuple[str, str, str]
"""Owner, repository, commit."""


class _Shown:
    """One commit: its board once it is read, and what this process has told it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.board: Board | None = None
        self.told: dict[str, tuple[int, Verdict]] = {}


class Reporting:
    """`log_url` gives the page of a run by its id; `is_app` whether check runs are ours to make."""

    def __init__(self, api: GitHubApi, is_app: Callable[[], bool], log_url: Callable[[int], str]) -> None:
        self._api = api
        self._is_app = is_app
        self._log_url = log_url
        self._commits: dict[Commit, _Shown] = {}

    async def report(self, run: Run, runs: Runs) -> None:
        """Raises `Unavailable` when GitHub is to be told again."""
        push = run.push
        if push.sha == GONE:
            return
        commit = (push.owner.lower(), push.repository.lower(), push.sha)
        shown = self._commits.setdefault(commit, _Shown())
        async with shown.lock:
            try:
                await self._bring(run, runs, shown)
            except Refused as error:
                if error.github_status not in (404, 410, 422) and age_of(run) < _GIVEN_UP:
                    raise  # a right that is missing may be given
                # The commit or the repository is gone, or it has been long: nobody is left to be told.
                log.warning("run %s is not shown on GitHub: %s", run.id, error)
        while len(self._commits) > _REMEMBERED and (oldest := next(iter(self._commits))) != commit:
            del self._commits[oldest]

    async def _bring(self, run: Run, runs: Runs, shown: _Shown) -> None:
        board = shown.board or await self._read_board(run.push)
        shown.board = board
        url = self._log_url(run.id)
        wanted = verdicts(run, url)
        if not run.is_open:
            named = {each.function for each in wanted}
            wanted += [left_over(run, function, url) for function in board.pending(run) if function not in named]
        is_old = newer_run_of_commit(run, runs.all())
        for verdict in wanted:
            if is_old and not board.is_runs_own(run, verdict.function):
                continue
            if shown.told.get(verdict.context) == (run.id, verdict):
                continue
            lines = await runs.lines(run.id) if verdict.state != PENDING else []
            await board.show(run, verdict, lines)
            shown.told[verdict.context] = (run.id, verdict)

    async def _read_board(self, push: Push) -> Board:
        board: Board = CheckBoard(self._api, push) if self._is_app() else StatusBoard(self._api, push)
        await board.read()
        return board


def age_of(run: Run) -> float:
    """Seconds since it was accepted."""
    created = datetime.fromisoformat(run.created_at)
    return (datetime.now(created.tzinfo) - created).total_seconds()
