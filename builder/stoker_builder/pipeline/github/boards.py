"""Where verdicts stand below a commit: check runs, which are an App's, or commit statuses, which a token can make.

A board first reads what an earlier life of ours left there, so that nothing is made twice or stays pending.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

from stoker_builder.pipeline.github.api import GitHubApi
from stoker_builder.pipeline.github.texts import log_tail
from stoker_builder.pipeline.reports import FAILURE, PENDING, SKIPPED, STOPPED, SUCCESS, Verdict, prefix_of
from stoker_sdk.runs import QUEUED, Push, Run, RunLine

_CONCLUSIONS: Final = {SUCCESS: "success", FAILURE: "failure", SKIPPED: "skipped", STOPPED: "cancelled"}
_STATES: Final = {PENDING: "pending", SUCCESS: "success", FAILURE: "failure", SKIPPED: "error", STOPPED: "error"}
_PAGES: Final = 10
_PER_PAGE: Final = 100


class Board(Protocol):
    """One commit's. Methods raise the errors of `GitHubApi`."""

    async def read(self) -> None:
        """What is there already; before anything else."""

    def is_runs_own(self, run: Run, function: str) -> bool:
        """Whether the line is this run's alone, so that it does not matter that there is a newer run."""

    def pending(self, run: Run) -> Iterable[str]:
        """Functions whose lines have no end yet; the empty name is the whole run's."""

    async def show(self, run: Run, verdict: Verdict, lines: list[RunLine]) -> None:
        """`lines` is the run's log, where the verdict is an end."""


@dataclass
class _Check:
    id: int
    is_done: bool


class CheckBoard:
    """A check of its own for each run and function, known by its `external_id`: `RUN:FUNCTION`."""

    def __init__(self, api: GitHubApi, push: Push) -> None:
        self._api = api
        self._push = push
        self._checks: dict[str, _Check] = {}

    async def read(self) -> None:
        for page in range(1, _PAGES + 1):
            path = f"/commits/{quote(self._push.sha)}/check-runs?filter=all&per_page={_PER_PAGE}&page={page}"
            found = (await self._ask("GET", path))["check_runs"]
            for each in found:
                self._checks[str(each.get("external_id", ""))] = _Check(int(each["id"]), each["status"] == "completed")
            if len(found) < _PER_PAGE:
                break

    def is_runs_own(self, run: Run, function: str) -> bool:
        return f"{run.id}:{function}" in self._checks

    def pending(self, run: Run) -> Iterable[str]:
        found = [key.split(":", 1) for key, check in self._checks.items() if ":" in key and not check.is_done]
        return [function for id, function in found if id == str(run.id)]

    async def show(self, run: Run, verdict: Verdict, lines: list[RunLine]) -> None:
        key = f"{run.id}:{verdict.function}"
        check = self._checks.get(key)
        is_done = verdict.state != PENDING
        if check is not None and check.is_done and not is_done:
            return  # the run began again; its end comes
        body = self._body(run, verdict, key, lines)
        if check is None:
            created = await self._ask("POST", "/check-runs", body | {"head_sha": self._push.sha})
            self._checks[key] = _Check(int(created["id"]), is_done)
        else:
            await self._ask("PATCH", f"/check-runs/{check.id}", body)
            check.is_done = is_done

    def _body(self, run: Run, verdict: Verdict, key: str, lines: list[RunLine]) -> dict[str, Any]:
        body: dict[str, Any] = {"name": verdict.context, "external_id": key, "details_url": verdict.url}
        output = {"title": verdict.description, "summary": f"[{verdict.url}]({verdict.url})"}
        if run.started_at:
            body["started_at"] = _to_the_second(run.started_at)
        if verdict.state == PENDING:
            body["status"] = "queued" if run.state == QUEUED else "in_progress"
        else:
            if text := log_tail(lines, verdict.function, self._api.secrets()):
                output["text"] = text
            body |= {"status": "completed", "conclusion": _CONCLUSIONS[verdict.state]}
            if run.ended_at:
                body["completed_at"] = _to_the_second(run.ended_at)
        return body | {"output": output}

    async def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return await self._api.repository(self._push.owner, self._push.repository, verb, path, body=body)


class StatusBoard:
    """A status for each context; the last one counts, whichever run it is of."""

    def __init__(self, api: GitHubApi, push: Push) -> None:
        self._api = api
        self._push = push
        self._states: dict[str, str] = {}

    async def read(self) -> None:
        for page in range(1, _PAGES + 1):
            path = f"/commits/{quote(self._push.sha)}/statuses?per_page={_PER_PAGE}&page={page}"
            found = await self._api.repository(self._push.owner, self._push.repository, "GET", path)
            for each in found:  # the newest first
                self._states.setdefault(str(each["context"]), str(each["state"]))
            if len(found) < _PER_PAGE:
                break

    def is_runs_own(self, run: Run, function: str) -> bool:
        return False

    def pending(self, run: Run) -> Iterable[str]:
        prefix = prefix_of(run)
        waiting = [context for context, state in self._states.items() if state == "pending"]
        functions = [context.removeprefix(f"{prefix}/") for context in waiting if context.startswith(f"{prefix}/")]
        return [*functions, ""] if prefix in waiting else functions

    async def show(self, run: Run, verdict: Verdict, lines: list[RunLine]) -> None:
        state = _STATES[verdict.state]
        body = {"context": verdict.context, "description": verdict.description, "target_url": verdict.url}
        path = f"/statuses/{self._push.sha}"
        await self._api.repository(self._push.owner, self._push.repository, "POST", path, body=body | {"state": state})
        self._states[verdict.context] = state


def _to_the_second(rfc3339: str) -> str:
    """As GitHub's API writes times: `YYYY-MM-DDTHH:MM:SSZ`."""
    return f"{rfc3339[:19]}Z"
