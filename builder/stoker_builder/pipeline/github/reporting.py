"""Brings verdicts to commits: check runs where we are an App, commit statuses where we have a token.

Only what is new is sent. Of two runs of one commit the newer one speaks; and since nobody else writes below our names,
what was sent last is what stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from stoker_builder.pipeline.github.api import GitHubApi, Refused
from stoker_builder.pipeline.github.texts import log_tail
from stoker_builder.pipeline.reports import (
    FAILURE,
    PENDING,
    SKIPPED,
    STOPPED,
    SUCCESS,
    Verdict,
    newer_run_of_commit,
    verdicts,
)
from stoker_builder.pipeline.runs import Runs
from stoker_sdk.runs import GONE, QUEUED, Run

log = logging.getLogger("stoker.pipeline")

_CONCLUSIONS: Final = {SUCCESS: "success", FAILURE: "failure", SKIPPED: "skipped", STOPPED: "cancelled"}
_STATES: Final = {PENDING: "pending", SUCCESS: "success", FAILURE: "failure", SKIPPED: "error", STOPPED: "error"}
_REMEMBERED: Final = 500
"""Commits, of which we remember what they show."""

_GIVEN_UP: Final = 24 * 3600.0
"""Seconds after which a report that GitHub refuses is not tried again."""

Commit = tuple[str, str, str]
"""Owner, repository, commit."""


class _Shown:
    """What one commit shows, as far as this process has told it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.told: dict[str, tuple[int, Verdict]] = {}
        self.checks: dict[str, int] | None = None


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
            if newer_run_of_commit(run, runs.all()):
                return
            for verdict in verdicts(run, self._log_url(run.id)):
                if shown.told.get(verdict.context) == (run.id, verdict):
                    continue
                await self._show(run, runs, verdict, shown)
                shown.told[verdict.context] = (run.id, verdict)
        while len(self._commits) > _REMEMBERED:
            oldest = next(iter(self._commits))
            if oldest == commit:
                break
            del self._commits[oldest]

    async def _show(self, run: Run, runs: Runs, verdict: Verdict, shown: _Shown) -> None:
        try:
            if self._is_app():
                await self._check(run, runs, verdict, shown)
            else:
                await self._status(run, verdict)
        except Refused as error:
            if error.github_status not in (404, 410, 422) and age_of(run) < _GIVEN_UP:
                raise  # a right that is missing may be given
            # The commit or the repository is gone, or it has been long: nobody is left to be told.
            log.warning("run %s is not shown on GitHub: %s", run.id, error)

    async def _status(self, run: Run, verdict: Verdict) -> None:
        push = run.push
        body = {
            "state": _STATES[verdict.state],
            "context": verdict.context,
            "description": verdict.description,
            "target_url": verdict.url,
        }
        await self._api.repository(push.owner, push.repository, "POST", f"/statuses/{push.sha}", body=body)

    async def _check(self, run: Run, runs: Runs, verdict: Verdict, shown: _Shown) -> None:
        push = run.push
        if shown.checks is None:
            shown.checks = await self._known_checks(run)
        key = f"{run.id}:{verdict.function}"
        body = await self._check_body(run, runs, verdict, key)
        number = shown.checks.get(key)
        if number is not None:
            await self._api.repository(push.owner, push.repository, "PATCH", f"/check-runs/{number}", body=body)
            return
        created = await self._api.repository(
            push.owner, push.repository, "POST", "/check-runs", body=body | {"head_sha": push.sha}
        )
        shown.checks[key] = int(created["id"])

    async def _check_body(self, run: Run, runs: Runs, verdict: Verdict, key: str) -> dict[str, Any]:
        body: dict[str, Any] = {"name": verdict.context, "external_id": key, "details_url": verdict.url}
        output = {"title": verdict.description, "summary": f"[{verdict.url}]({verdict.url})"}
        if run.started_at:
            body["started_at"] = run.started_at
        if verdict.state == PENDING:
            body["status"] = "queued" if run.state == QUEUED else "in_progress"
        else:
            lines = await runs.lines(run.id)
            if text := log_tail(lines, verdict.function, self._api.secrets()):
                output["text"] = text
            body |= {"status": "completed", "conclusion": _CONCLUSIONS[verdict.state]}
            if run.ended_at:
                body["completed_at"] = run.ended_at
        return body | {"output": output}

    async def _known_checks(self, run: Run) -> dict[str, int]:
        """Those of an earlier life of ours, by `external_id`."""
        push = run.push
        found: dict[str, int] = {}
        for page in range(1, 11):
            path = f"/commits/{quote(push.sha)}/check-runs?filter=all&per_page=100&page={page}"
            answer = await self._api.repository(push.owner, push.repository, "GET", path)
            found |= {str(each.get("external_id", "")): int(each["id"]) for each in answer["check_runs"]}
            if len(answer["check_runs"]) < 100:
                break
        return found


def age_of(run: Run) -> float:
    """Seconds since it was accepted."""
    created = datetime.fromisoformat(run.created_at)
    return (datetime.now(created.tzinfo) - created).total_seconds()
