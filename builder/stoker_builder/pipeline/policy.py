"""Decisions about runs, as pure functions of runs: which one is next, which ones are superseded, which one is lost.

Nothing here knows a clock, a broker or a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_sdk.runs import QUEUED, RUNNING, Push, Run

MAX_ATTEMPTS: Final = 3
"""A run that was left behind by so many killed pipelines is failed: it may be what kills them."""


@dataclass(frozen=True)
class Limits:
    """How many runs go at once, in all and for one owner, and how many may wait for their turn in all."""

    at_once: int = 2
    per_owner: int = 1
    waiting: int = 500


def same_push(push: Push, runs: Iterable[Run]) -> Run | None:
    """The run that has this push already: the newest of its place, if it is at this commit, and stands or goes.

    What failed or was cancelled may come again. A commit that the branch left, and came back to, is another push.
    """
    newest = max((run for run in runs if run.push.place == push.place), key=lambda run: run.id, default=None)
    if newest is None or newest.push.sha != push.sha:
        return None
    return newest if newest.is_open or newest.state == "succeeded" else None


def superseded_by(head: Run, runs: Iterable[Run]) -> list[Run]:
    """The runs that need not begin any more, now that this one, whose commit the branch is at, is there."""
    return [run for run in runs if run.state == QUEUED and run.push.place == head.push.place and run.id != head.id]


def choose(runs: Sequence[Run], limits: Limits, served: Sequence[str] = ()) -> list[Run]:
    """The runs that begin now, in order. `served` are the owners whose runs began last, the latest at the end.

    Of one repository one run goes at a time, and of one branch the newest first. An owner with fewer running is before
    one with more, then whoever was not served for longer, then the older run.
    """
    running = [run for run in runs if run.state == RUNNING]
    busy = {run.push.home for run in running}
    count = Counter(run.push.owner for run in running)
    turn = {owner: place for place, owner in enumerate(served, 1)}
    newest = {run.push.place: run for run in sorted(runs, key=lambda run: run.id) if run.state == QUEUED}
    waiting = list(newest.values())
    chosen: list[Run] = []
    while len(running) + len(chosen) < limits.at_once:
        able = [run for run in waiting if run.push.home not in busy and count[run.push.owner] < limits.per_owner]
        if not able:
            break
        best = min(able, key=lambda run: (count[run.push.owner], turn.get(run.push.owner, 0), run.id))
        chosen.append(best)
        waiting.remove(best)
        busy.add(best.push.home)
        count[best.push.owner] += 1
        turn[best.push.owner] = len(turn) + len(served) + 1
    return chosen


def overtaken(run: Run, head: str) -> str:
    """Why the run must not go live; empty: it may. `head` is what its branch is at: messages of pushes come late, twice
    and in any order, so no order of theirs decides.
    """
    if head == run.push.sha:
        return ""
    where = f"at {head[:7]}" if head else "gone"
    return f"{run.push.branch} is {where} now"


def after_a_kill(run: Run) -> tuple[str, str]:
    """State and reason of a run that was running when its pipeline was killed."""
    if run.attempt >= MAX_ATTEMPTS:
        return "failed", f"the pipeline was ended {run.attempt} times while this ran: `stoker runs retry` tries again"
    return QUEUED, ""
