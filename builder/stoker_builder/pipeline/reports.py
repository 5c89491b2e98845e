"""What a commit is to show of its run: one verdict for the whole, and one for each function. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stoker_sdk.runs import CANCELLED, FAILED, QUEUED, SUCCEEDED, SUPERSEDED, FunctionResult, Run

PENDING: Final = "pending"
SUCCESS: Final = "success"
FAILURE: Final = "failure"
SKIPPED: Final = "skipped"
"""Another commit is live instead."""
STOPPED: Final = "cancelled"

MAX_DESCRIPTION: Final = 140
"""Characters that GitHub takes for a commit status."""
_NAME: Final = "stoker"


@dataclass(frozen=True)
class Verdict:
    """One line below a commit. `function` is empty for the whole run; `url` leads to the function or to the log."""

    context: str
    state: str
    description: str
    url: str
    function: str = ""


def verdicts(run: Run, log_url: str) -> list[Verdict]:
    """The whole first, then the functions in their order. Those that were removed have none."""
    prefix = prefix_of(run)
    shown = [each for each in run.functions if each.state != "removed"]
    state, text, url = _whole(run, shown, log_url)
    found = [Verdict(prefix, state, _short(text), url)]
    for each in shown:
        state, text, url = _function(run, each, log_url)
        found.append(Verdict(f"{prefix}/{each.name}", state, _short(text), url, each.name))
    return found


def left_over(run: Run, function: str, log_url: str) -> Verdict:
    """The end of a line that an earlier attempt of the run began, when the run has ended without the function."""
    state, text = (SKIPPED, "not in the stack") if run.state == SUCCEEDED else _ending(run)
    prefix = prefix_of(run)
    return Verdict(f"{prefix}/{function}" if function else prefix, state, _short(text), log_url, function)


def prefix_of(run: Run) -> str:
    """What the contexts of the run's verdicts begin with."""
    return f"{_NAME} preview" if run.push.pull else _NAME


def newer_run_of_commit(run: Run, runs: Iterable[Run]) -> bool:
    """Whether a newer run has the same commit, for the same kind of place, so that it is to speak."""
    push = run.push
    return any(
        other.id > run.id
        and other.push.sha == push.sha
        and other.push.home == push.home
        and bool(other.push.pull) == bool(push.pull)
        for other in runs
    )


def _whole(run: Run, functions: list[FunctionResult], log_url: str) -> tuple[str, str, str]:
    if run.state == QUEUED:
        return PENDING, f"run {run.id} waits for its turn", log_url
    if run.state == SUCCEEDED:
        urls = [each.url for each in functions if each.url]
        live = f"live: {', '.join(each.name for each in functions)}" if functions else "nothing is to be live"
        return SUCCESS, live, urls[0] if len(urls) == 1 else log_url
    if run.state in (FAILED, SUPERSEDED, CANCELLED):
        return *_ending(run), log_url
    return PENDING, f"run {run.id} is at work", log_url


def _ending(run: Run) -> tuple[str, str]:
    """State and text of a run that did not succeed."""
    if run.state == SUPERSEDED:
        return SKIPPED, f"superseded: {run.reason}"
    if run.state == CANCELLED:
        return STOPPED, run.reason or "cancelled"
    return FAILURE, run.reason or "failed"


def _function(run: Run, function: FunctionResult, log_url: str) -> tuple[str, str, str]:
    if function.state == "deployed":
        return SUCCESS, "live", function.url or log_url
    if function.state == "unchanged":
        return SUCCESS, "unchanged, live", function.url or log_url
    if function.state == "failed":
        return FAILURE, function.reason or "failed", log_url
    if run.is_open or run.state == SUCCEEDED:
        return PENDING, "on its way", log_url
    state, text = _ending(run)
    return state, f"not deployed: {text}", log_url


def _short(text: str) -> str:
    """One line that GitHub takes."""
    line = " ".join(re.sub(r"[^\S ]|[^\x20-\uffff]", " ", text).split())
    return line if len(line) <= MAX_DESCRIPTION else line[: MAX_DESCRIPTION - 1] + "\N{HORIZONTAL ELLIPSIS}"
