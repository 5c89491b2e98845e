"""How many calls each function had, how they ended and how long they took: values, and where to ask for them.

Proxies count in plain numbers of their own; control asks for the sum when somebody wants to see it. These
structs are also what travels between the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from stoker_sdk.faults import Fault, latest

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; a last bucket without a bound follows them (contract section 7)."""


class Timings(msgspec.Struct):
    """Durations: calls per bucket (not cumulative, the last has no bound), and seconds in all."""

    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def quantile(self, part: float) -> float:
        """The seconds within which this part of the calls (0 to 1) ended, taken as even within a bucket; 0 without any.

        Beyond the last bound it is that bound.
        """
        wanted, below = part * self.count, 0
        for count, lower, upper in zip(self.buckets, (0.0, *BUCKETS), BUCKETS, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below += count
        return BUCKETS[-1] if below < self.count else 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add(self, other: Timings) -> None:
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


MAX_FAULTS: Final = 12
"""Kept of one function; a function can make codes up."""


class FunctionCounters(msgspec.Struct):
    """One function's calls. `key` is `NAME.NAMESPACE`; `codes` holds those that ended, by status.

    `faults` are the latest of each code. `first_call` is when its last revision got its first call, in seconds of Unix
    time; 0 before that, and where the revision was there before who counts.
    """

    key: str
    started: int = 0
    inflight: int = 0
    codes: dict[int, Timings] = {}
    faults: list[Fault] = []
    revision: int = 0
    first_call: int = 0

    @property
    def ended(self) -> int:
        return sum(timings.count for timings in self.codes.values())

    @property
    def timings(self) -> Timings:
        """Of all ended calls, whatever their status."""
        sum = Timings()
        for timings in self.codes.values():
            sum.add(timings)
        return sum

    def observe(self, code: int, seconds: float) -> None:
        self.codes.setdefault(code, Timings()).observe(seconds)

    def add(self, other: FunctionCounters) -> None:
        self.started += other.started
        self.inflight += other.inflight
        for code, timings in other.codes.items():
            self.codes.setdefault(code, Timings()).add(timings)
        if other.faults:
            self.faults = latest([*self.faults, *other.faults], MAX_FAULTS)
        if other.revision > self.revision:
            self.revision, self.first_call = other.revision, other.first_call
        elif other.revision == self.revision and other.first_call:
            self.first_call = min(self.first_call or other.first_call, other.first_call)


class Counters(Protocol):
    """Where the counts of all proxies together can be had."""

    async def totals(self) -> list[FunctionCounters]:
        """One entry per function that was ever called. Raises `Unavailable` when they cannot be had now."""


def add_up(parts: Iterable[Iterable[FunctionCounters]]) -> list[FunctionCounters]:
    """The sum of what several proxies counted, by key. Leaves the parts as they are."""
    sums: dict[str, FunctionCounters] = {}
    for part in parts:
        for counted in part:
            sums.setdefault(counted.key, FunctionCounters(counted.key)).add(counted)
    return [sums[key] for key in sorted(sums)]


class MemoryCounters:
    """Counters of this process: for tests, and wherever proxy and control are one."""

    def __init__(self) -> None:
        self._functions: dict[str, FunctionCounters] = {}

    def start(self, key: str) -> None:
        counted = self._functions.setdefault(key, FunctionCounters(key))
        counted.started += 1
        counted.inflight += 1

    def end(self, key: str, code: int, seconds: float) -> None:
        counted = self._functions[key]
        counted.inflight -= 1
        counted.observe(code, seconds)

    async def totals(self) -> list[FunctionCounters]:
        return add_up([self._functions.values()])
