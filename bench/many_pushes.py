"""How a function is called while fifty pushes of ten owners are on their way.

The function, its proxy and a light, steady load have one core; all else, from git to the builds' tests, has the other.

Every second turn the kernel's own threads stay off the core of the function (`shield.py`), with and without pushes
alike; these turns make the figure, and its note tells the ratio of the others.

A p99 of a thousand calls is its ten slowest, so rounds differ: quiet and pushes follow one another in each of them,
and the median of their ratios counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil  # type: ignore[import-untyped, unused-ignore]

from bench.processes import (
    LOAD_CORE,
    TEST_CORE,
    BenchError,
    family,
    machine_seconds,
    own_seconds,
)
from bench.pushing import WorkingCopy, end_of
from bench.report import Figure
from bench.serving import HELLO, Serving, condition, serving
from bench.shield import Shield
from bench.steady import steady_calls
from stoker_sdk.runs import SUCCEEDED

_OWNERS, _EACH = 10, 5
_ROUNDS = 3
_TAKEN_AGAIN = 2
_MUCH = 0.06
_RATE = 200
_WINDOW_SECONDS = 14.0
_RUNS_SECONDS = 300.0
_LOOK_SECONDS = 0.5  # each look passes the proxy, which is what is measured
_HANDLER = "def handle(req):\n    return {text!r}\n"
_TEST = "from .handler import handle\n\n\ndef test_it_answers():\n    assert handle('') == {text!r}\n"


def pushes_figures(folder: Path) -> list[Figure]:
    """`pushes_p99`: behind the shield; without root's rights there is none, and the note tells so."""
    with serving(folder, "--proxies", "1", cores=(TEST_CORE, LOAD_CORE)) as platform:
        platform.deploy("steady", HELLO)
        served = _pin(platform, "steady")
        copies = [
            WorkingCopy(platform, folder / f"owner{owner}" / f"f{number}", f"owner{owner}", f"f{number}")
            for owner in range(_OWNERS)
            for number in range(_EACH)
        ]
        rounds = _rounds(_Bench(platform, served, copies))
    seconds, others = median(one.seconds for one in rounds), median(one.others for one in rounds)
    note = (
        f"{len(copies)} pushes at once, all live after {seconds:.0f} s; {_RATE} calls a second; "
        f"others had {others:.0%} of the machine"
    )
    plain = [one.plain for one in rounds]
    shielded = [one.shielded for one in rounds if one.shielded is not None]
    if shielded:
        return [_figure(shielded, f"without the shield {median(one.ratio for one in plain):.2f}; {note}")]
    return [_figure(plain, f"the kernel's threads were on this core, too: to move them takes root's rights; {note}")]


@dataclass(frozen=True)
class _Latencies:
    """p99 in ms: without anything beside it, and with pushes on the other core."""

    quiet: float
    pushes: float

    @property
    def ratio(self) -> float:
        return self.pushes / self.quiet


@dataclass(frozen=True)
class _Round:
    """Without the shield, and behind it; how long the pushes took; others' share of both cores."""

    plain: _Latencies
    shielded: _Latencies | None
    seconds: float
    others: float


@dataclass(frozen=True)
class _Bench:
    """`served` are the pids of the function and its proxy."""

    platform: Serving
    served: list[int]
    copies: list[WorkingCopy]


def _figure(rounds: list[_Latencies], note: str) -> Figure:
    ratios = [one.ratio for one in rounds]
    pushes, quiet = median(one.pushes for one in rounds), median(one.quiet for one in rounds)
    compared = f"rounds {min(ratios):.2f} to {max(ratios):.2f}; {note}"
    return Figure("pushes_p99", median(ratios), f"p99 {pushes:.2f} ms", f"without pushes {quiet:.2f} ms", compared)


def _rounds(bench: _Bench) -> list[_Round]:
    """One is taken again, a few times at most, when others used much of the machine meanwhile."""
    rounds: list[_Round] = []
    for number in range(_ROUNDS + _TAKEN_AGAIN):
        one = _round(bench, f"version {number}")
        if one.others < _MUCH or number - len(rounds) == _TAKEN_AGAIN:
            rounds.append(one)
        if len(rounds) == _ROUNDS:
            break
    return rounds


def _round(bench: _Bench, text: str) -> _Round:
    own, machine, begun = own_seconds(), machine_seconds(), time.monotonic()
    quiet = _window(bench, lambda: time.sleep(_WINDOW_SECONDS))
    pushed = time.monotonic()
    pushes = _window(bench, lambda: _push_all(bench.platform, bench.copies, text))
    ended = time.monotonic()
    _check_pins(bench)
    others = (machine_seconds() - machine - (own_seconds() - own)) / (2 * (ended - begun))
    plain, shielded = zip(quiet, pushes, strict=True)
    return _Round(_latencies(plain), _latencies(shielded) if all(shielded) else None, ended - pushed, max(0.0, others))


def _window(bench: _Bench, work: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Milliseconds of the calls that are made while `work` runs: without the shield, and behind it."""
    with steady_calls(bench.platform.function_url("steady"), _RATE, TEST_CORE) as calls:
        with Shield(TEST_CORE) as shield:
            work()
        made = calls.end()
    return shield.without(made), shield.behind(made)


def _latencies(windows: tuple[list[float], ...]) -> _Latencies:
    return _Latencies(*(quantiles(calls, n=100)[98] for calls in windows))


def _pin(platform: Serving, name: str) -> list[int]:
    """The function and its proxy stay on the core under test; everything else, and what it will start, leaves it.

    Returns the pids of those that stay.
    """
    replicas = {instance.pid for instance in condition(platform.client(), name).instances}
    served = []
    for process in family(platform.pid):
        is_served = process.pid in replicas or "stoker_gateway.proxy" in process.cmdline()
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {TEST_CORE if is_served else LOAD_CORE})
        if is_served:
            served.append(process.pid)
    return served


def _check_pins(bench: _Bench) -> None:
    """Raises `BenchError` when a part of the platform has come to the core under test."""
    for process in family(bench.platform.pid):
        with suppress(psutil.NoSuchProcess):
            if process.pid not in bench.served and TEST_CORE in process.cpu_affinity():
                raise BenchError(f"{' '.join(process.cmdline())[:80]} may use the core of the function")


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
