"""How a function is called while fifty pushes of ten owners are on their way.

The function, its proxy and a light, steady load have one core; all else, from git to the builds' tests, has the other.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.processes import LOAD_CORE, TEST_CORE, BenchError, family, machine_seconds, own_seconds
from bench.pushing import WorkingCopy, end_of
from bench.report import Figure
from bench.serving import HELLO, Serving, condition, serving
from bench.steady import Calls, steady_calls
from stoker_sdk.runs import SUCCEEDED

_OWNERS, _EACH = 10, 5
_ROUNDS = 3
_TAKEN_AGAIN = 2
_MUCH = 0.06
_RATE = 200
_QUIET_SECONDS = 10.0
_RUNS_SECONDS = 300.0
_LOOK_SECONDS = 0.5  # each look passes the proxy, which is what is measured
_HANDLER = "def handle(req):\n    return {text!r}\n"
_TEST = "from .handler import handle\n\n\ndef test_it_answers():\n    assert handle('') == {text!r}\n"


def pushes_figures(folder: Path) -> list[Figure]:
    """`pushes_p99`."""
    with serving(folder, "--proxies", "1", cores=(TEST_CORE, LOAD_CORE)) as platform:
        platform.deploy("steady", HELLO)
        _pin(platform, "steady")
        copies = [
            WorkingCopy(platform, folder / f"owner{owner}" / f"f{number}", f"owner{owner}", f"f{number}")
            for owner in range(_OWNERS)
            for number in range(_EACH)
        ]
        rounds = _rounds(platform, copies)
    ratios = [one.busy / one.quiet for one in rounds]
    seconds = median(one.seconds for one in rounds)
    note = (
        f"{len(copies)} pushes at once, all live after {seconds:.0f} s; rounds {min(ratios):.2f} to {max(ratios):.2f}; "
        f"{_RATE} calls a second; others had {median(one.others for one in rounds):.0%} of the machine"
    )
    busy, quiet = median(one.busy for one in rounds), median(one.quiet for one in rounds)
    return [Figure("pushes_p99", median(ratios), f"p99 {busy:.2f} ms", f"without pushes {quiet:.2f} ms", note)]


@dataclass(frozen=True)
class _Round:
    """p99 in ms without and with pushes; how long these took, and the share of both cores that was other people's."""

    quiet: float
    busy: float
    seconds: float
    others: float


def _rounds(platform: Serving, copies: list[WorkingCopy]) -> list[_Round]:
    """One is taken again, a few times at most, when others used much of the machine meanwhile."""
    rounds: list[_Round] = []
    for number in range(_ROUNDS + _TAKEN_AGAIN):
        one = _round(platform, copies, f"version {number}")
        if one.others < _MUCH or number - len(rounds) == _TAKEN_AGAIN:
            rounds.append(one)
        if len(rounds) == _ROUNDS:
            break
    return rounds


def _round(platform: Serving, copies: list[WorkingCopy], text: str) -> _Round:
    own, machine, begun = own_seconds(), machine_seconds(), time.monotonic()
    with steady_calls(platform.function_url("steady"), _RATE, TEST_CORE) as calls:
        time.sleep(_QUIET_SECONDS)
        quiet = _p99(calls)
    pushed = time.monotonic()
    with steady_calls(platform.function_url("steady"), _RATE, TEST_CORE) as calls:
        _push_all(platform, copies, text)
        busy = _p99(calls)
    ended = time.monotonic()
    others = (machine_seconds() - machine - (own_seconds() - own)) / (2 * (ended - begun))
    return _Round(quiet, busy, ended - pushed, max(0.0, others))


def _p99(calls: Calls) -> float:
    return quantiles(calls.end(), n=100)[98]


def _pin(platform: Serving, name: str) -> None:
    """The function and its proxy stay on the core under test; everything else, and what it will start, leaves it."""
    replicas = {instance.pid for instance in condition(platform.client(), name).instances}
    for process in family(platform.pid):
        is_served = process.pid in replicas or "stoker_gateway.proxy" in process.cmdline()
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {TEST_CORE if is_served else LOAD_CORE})


def _push_all(platform: Serving, copies: list[WorkingCopy], text: str) -> None:
    """Return when all runs have ended. Raises `BenchError` when one did not go well."""
    for copy in copies:
        copy.commit({"handler.py": _HANDLER.format(text=text), "handler_test.py": _TEST.format(text=text)})
    for push in [copy.push("-o", "detach") for copy in copies]:
        end_of(push)
    client, deadline = platform.client().runs, time.monotonic() + _RUNS_SECONDS
    runs = client.list_runs(limit=len(copies))
    while any(run.is_open for run in runs):
        if time.monotonic() > deadline:
            raise BenchError(f"runs have not ended within {_RUNS_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
        runs = client.list_runs(limit=len(copies))
    failed = [run for run in runs if run.state != SUCCEEDED]
    if failed:
        raise BenchError(f"{len(failed)} runs went wrong, such as {failed[0].title}: {failed[0].reason}")
