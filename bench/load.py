"""Loads HTTP servers with wrk, in turns, and compares what came out round by round.

In turns (A B C A B C ...), because a machine's speed drifts over seconds: a ratio of two neighbouring rounds holds
where absolute numbers do not.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

from bench.processes import LOAD_CORE, BenchError, cpu_seconds, machine_seconds, own_seconds
from bench.report import Figure

_SPARE_SECONDS = 20
_MUCH = 0.06
_TAKEN_AGAIN = 3
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
    """One run of wrk: calls a second, latencies in ms; the share of one core that the subject used meanwhile, and the
    share of both cores that went to other people's work.
    """

    rate: float
    p50: float
    p99: float
    busy: float = 0.0
    others: float = 0.0


@dataclass(frozen=True)
class Duel:
    """All rounds of all subjects, by name; round n of one stands beside round n of every other."""

    rounds: dict[str, list[Round]]

    def median(self, name: str, value: Callable[[Round], float]) -> float:
        return median(value(one) for one in self.rounds[name])

    def ratios(self, name: str, peer: str, value: Callable[[Round], float]) -> list[float]:
        """A subject's value divided by its peer's, round by round."""
        pairs = zip(self.rounds[name], self.rounds[peer], strict=True)
        return [value(ours) / value(theirs) for ours, theirs in pairs]

    def note(self, name: str, peer: str) -> str:
        """How far the rounds lie apart, and what the figure would be if the load had not been the narrow place."""
        rates = self.ratios(name, peer, rate_of)
        by_core_time = median(self.ratios(name, peer, lambda one: one.rate / one.busy))
        return (
            f"rounds {min(rates):.2f} to {max(rates):.2f}; p99 {self.median(name, p99_of):.2f} and "
            f"{self.median(peer, p99_of):.2f} ms; busy {self.median(name, busy_of):.0%} and "
            f"{self.median(peer, busy_of):.0%} of the core, so {by_core_time:.2f} by core time; "
            f"others had {max(self.median(name, others_of), self.median(peer, others_of)):.0%} of the machine"
        )


def rate_of(one: Round) -> float:
    return one.rate


def p99_of(one: Round) -> float:
    return one.p99


def busy_of(one: Round) -> float:
    return one.busy


def others_of(one: Round) -> float:
    return one.others


def rate_figure(key: str, result: Duel, name: str, peer: str) -> Figure:
    """The median over the rounds of a subject's calls a second divided by its peer's in the same round."""
    ours, theirs = result.median(name, rate_of), result.median(peer, rate_of)
    value = median(result.ratios(name, peer, rate_of))
    return Figure(key, value, f"{ours:,.0f}/s", f"{peer} {theirs:,.0f}/s", result.note(name, peer))


def p99_figure(key: str, result: Duel, name: str, peer: str) -> Figure:
    """The same for the 99th percentile of the latency."""
    ours, theirs = result.median(name, p99_of), result.median(peer, p99_of)
    ratios = result.ratios(name, peer, p99_of)
    note = f"rounds {min(ratios):.2f} to {max(ratios):.2f}"
    return Figure(key, median(ratios), f"{ours:.2f} ms", f"{peer} {theirs:.2f} ms", note)


def duel(subjects: Sequence[Subject], *, connections: int, seconds: int, rounds: int, warm_up: int = 1) -> Duel:
    """Load the subjects in turns, after a warm-up of each that does not count.

    A turn during which others used much of the two cores is taken again, a few times at most.
    """
    for subject in subjects:
        wrk(subject.url, connections, warm_up)
    turns: list[list[Round]] = []
    again = _TAKEN_AGAIN
    while len(turns) < rounds:
        turn = [_measured(subject, connections, seconds) for subject in subjects]
        if again and max(one.others for one in turn) > _MUCH:
            again -= 1
        else:
            turns.append(turn)
    return Duel({subject.name: list(own) for subject, own in zip(subjects, zip(*turns, strict=True), strict=True)})


def _measured(subject: Subject, connections: int, seconds: int) -> Round:
    before, begun = _spent(subject), monotonic()
    one = wrk(subject.url, connections, seconds)
    wall = monotonic() - begun
    own, ours, machine = (now - then for now, then in zip(_spent(subject), before, strict=True))
    return Round(one.rate, one.p50, one.p99, own / wall, max(0.0, machine - ours) / (2 * wall))


def _spent(subject: Subject) -> tuple[float, float, float]:
    """Processor time so far: of the subject, of the benchmark with all its processes, of the whole machine."""
    return sum(map(cpu_seconds, subject.pids)), own_seconds(), machine_seconds()


def wrk(url: str, connections: int, seconds: int, script: Path | None = None) -> Round:
    """One run, on the load's core; `script` is wrk's, for other requests than GET.

    Raises `BenchError` when any call failed: errors are no work done.
    """
    command = ["taskset", "--cpu-list", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--script", str(script)] if script else []
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
