"""Loads HTTP servers with wrk, in turns, and compares what came out round by round.

In turns (A B C A B C ...), because a machine's speed drifts over seconds: a ratio of two neighbouring rounds holds
where absolute numbers do not.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic

from bench.processes import LOAD_CORE, BenchError, cpu_seconds

_SPARE_SECONDS = 20
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_QUANTILE = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_FAILURE = re.compile(r"^\s*(Non-2xx or 3xx responses: .*|Socket errors: .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Subject:
    """A server to load: `pids` are the roots of its process trees, for the share of its core that it used."""

    name: str
    url: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """One run of wrk: calls a second, latencies in ms, the share of one core that the subject used meanwhile."""

    rate: float
    p50: float
    p99: float
    busy: float = 0.0


@dataclass(frozen=True)
class Duel:
    """All rounds of all subjects, by name; round n of one stands beside round n of every other."""

    rounds: dict[str, list[Round]]

    def median(self, name: str, value: Callable[[Round], float]) -> float:
        return median(value(one) for one in self.rounds[name])

    def ratio(self, name: str, peer: str, value: Callable[[Round], float]) -> float:
        """Median over the rounds of a subject's value divided by its peer's in the same round."""
        pairs = zip(self.rounds[name], self.rounds[peer], strict=True)
        return median(value(ours) / value(theirs) for ours, theirs in pairs)

    def ratio_told(self, name: str, peer: str) -> str:
        """The ratio of calls per second of processor time, which holds also where the load was the narrow place."""
        by_core_time = self.ratio(name, peer, lambda one: one.rate / one.busy)
        return f"{by_core_time:.2f} by core time"

    def told(self, name: str) -> str:
        """The medians of a subject in a few words."""
        rate, p99, busy = (self.median(name, value) for value in (rate_of, p99_of, busy_of))
        return f"{name} {rate:,.0f}/s, p99 {p99:.2f} ms, core {busy:.0%}"


def rate_of(one: Round) -> float:
    return one.rate


def p99_of(one: Round) -> float:
    return one.p99


def busy_of(one: Round) -> float:
    return one.busy


def duel(subjects: Sequence[Subject], *, connections: int, seconds: int, rounds: int, warm_up: int = 1) -> Duel:
    """Load the subjects in turns, after a warm-up of each that does not count."""
    for subject in subjects:
        wrk(subject.url, connections, warm_up)
    duels: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
    for _ in range(rounds):
        for subject in subjects:
            duels[subject.name].append(_measured(subject, connections, seconds))
    return Duel(duels)


def _measured(subject: Subject, connections: int, seconds: int) -> Round:
    before, begun = sum(map(cpu_seconds, subject.pids)), monotonic()
    one = wrk(subject.url, connections, seconds)
    busy = (sum(map(cpu_seconds, subject.pids)) - before) / (monotonic() - begun)
    return Round(one.rate, one.p50, one.p99, busy)


def wrk(url: str, connections: int, seconds: int) -> Round:
    """One run, on the load's core. Raises `BenchError` when any call failed: errors are no work done."""
    command = ["taskset", "--cpu-list", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    try:
        done = subprocess.run(
            [*command, "--latency", url],
            capture_output=True,
            text=True,
            timeout=seconds + _SPARE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"wrk on {url} did not end") from None
    return parse_wrk(done.stdout, f"{url}: {done.stderr.strip()}")


def parse_wrk(text: str, what: str) -> Round:
    """The numbers in what wrk printed. Raises `BenchError` with `what` when there are none, or failed calls."""
    rate = _RATE.search(text)
    quantiles = {int(q): float(value) * _UNITS[unit] for q, value, unit in _QUANTILE.findall(text)}
    failure = _FAILURE.search(text)
    if failure or rate is None or not {50, 99} <= quantiles.keys() or not float(rate[1]):
        raise BenchError(f"wrk on {what}: {failure[1] if failure else 'no calls were answered'}")
    return Round(float(rate[1]), quantiles[50], quantiles[99])
