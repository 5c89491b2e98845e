"""Many pushes of many owners at once: bounded, fair, each ends in a true verdict, and no call of a function fails."""

from __future__ import annotations

import http.client
import os
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import NotFound
from stoker_sdk.runs import Run

pytestmark = pytest.mark.slow

PUSHES = int(os.environ.get("STOKER_GIT_PUSHES", "20"))
OWNERS = 10
_STORING = timedelta(seconds=1)  # a run is in line when it is stored, a moment after it was created
AT_ONCE, PER_OWNER = 2, 1  # what `stoker serve` does unless it is told otherwise


@pytest.mark.timeout(120 + 6 * PUSHES)
def test_pushes_of_ten_owners_at_once(own_platform: Platform, tmp_path: Path) -> None:
    own_platform.deploy("steady", handler("steady "))
    copies = [_copy(own_platform, tmp_path, number) for number in range(PUSHES)]
    with _Calls(own_platform, "steady") as calls:
        for pushing in [copy.start("push", "-o", "detach", copy.url, "main") for copy in copies]:
            said, _ = pushing.communicate(timeout=100)
            assert pushing.returncode == 0, said
        wait_for(lambda: not any(run.is_open for run in _runs(own_platform)), "the end of all runs", 60 + 5 * PUSHES)
    assert set(calls.answers) == {(200, "steady you")}
    runs = _runs(own_platform)
    assert len(runs) == PUSHES
    for number, copy in enumerate(copies):
        _check_verdict(copy, number)
    assert _most_at_once(runs) <= AT_ONCE
    for owner in range(OWNERS):
        assert _most_at_once(run for run in runs if run.push.owner == f"owner{owner}") <= PER_OWNER
    _check_turns(runs)


class _Calls:
    """A light load until the block ends; `answers` are counted by status and text."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self._platform = platform
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> _Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._stop.wait(0.02):
            try:
                answer = self._platform.call(self._name, b"you")
                self.answers[answer.status, answer.text] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[0, repr(error)] += 1


def _copy(platform: Platform, folder: Path, number: int) -> WorkingCopy:
    """One of `OWNERS` has it. Each third is broken."""
    copy = WorkingCopy(platform, folder / f"copy{number}", f"owner{number % OWNERS}/greet{number}")
    files = passing("greet", f"{number} ")
    if _is_broken(number):
        files["greet__handlerDOTpy"] = handler("broken ")
    copy.commit(**files, stackDOTyml=stack("greet"))
    return copy


def _is_broken(number: int) -> bool:
    return number % 3 == 2


def _check_verdict(copy: WorkingCopy, number: int) -> None:
    (run,) = copy.runs()
    if _is_broken(number):
        assert (run.state, run.functions[0].test) == ("failed", "handler_test.py::test_it_answers")
        with pytest.raises(NotFound):
            copy.platform.status(copy.service("greet"))
    else:
        assert run.state == "succeeded", run
        assert copy.answer("greet") == f"{number} you"


def _runs(platform: Platform) -> list[Run]:
    return platform.client.runs.list_runs(limit=500)


def _most_at_once(runs: Iterable[Run]) -> int:
    """How many went at the same time, at any time; an end comes before a beginning of the same moment."""
    going = most = 0
    for _, step in sorted(event for run in runs for event in ((_time(run.started_at), 1), (_time(run.ended_at), -1))):
        going += step
        most = max(most, going)
    return most


def _check_turns(runs: list[Run]) -> None:
    """Nobody has two turns while another owner waits for one."""
    by_owner: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.started_at):
        by_owner.setdefault(run.push.owner, []).append(run)
    for owner, own in by_owner.items():
        for first, second in pairwise(own):
            for other, theirs in by_owner.items():
                if other != owner:
                    assert not _waits_in_vain(theirs, first.started_at, second.started_at), (owner, other)


def _waits_in_vain(runs: list[Run], begin: str, end: str) -> bool:
    """Whether an owner had a run in line all the while, and none that went or began meanwhile."""
    waited = any(_time(run.created_at) + _STORING < _time(begin) and run.started_at > end for run in runs)
    return waited and not any(run.started_at <= end and run.ended_at >= begin for run in runs)


def _time(rfc3339: str) -> datetime:
    return datetime.fromisoformat(rfc3339)
