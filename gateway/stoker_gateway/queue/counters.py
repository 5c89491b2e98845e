"""What proxies, workers and control count of async calls; how it is added up. These structs travel to control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from stoker_gateway.counters import Timings


class CallCounters(msgspec.Struct, omit_defaults=True):
    """One function's async calls. `key` is `NAME.NAMESPACE`.

    `enqueued`: from the request to its answer, by that answer's status; 202 is a stored call. `attempts`: from the send
    to the answer, by its status, 0 without one. `ended` counts outcomes by state, `callbacks` how they ended,
    `redelivered` deliveries after a call's first one, and `running` what runs now.
    """

    key: str
    enqueued: dict[int, Timings] = {}
    attempts: dict[int, Timings] = {}
    ended: dict[str, int] = {}
    callbacks: dict[str, int] = {}
    redelivered: int = 0
    running: int = 0

    def add(self, other: CallCounters) -> None:
        for mine, theirs in ((self.enqueued, other.enqueued), (self.attempts, other.attempts)):
            for status, timings in theirs.items():
                mine.setdefault(status, Timings()).add(timings)
        self.ended = dict(Counter(self.ended) + Counter(other.ended))
        self.callbacks = dict(Counter(self.callbacks) + Counter(other.callbacks))
        self.redelivered += other.redelivered
        self.running += other.running


DELIVERED = "delivered"
FAILED = "failed"


class CallCounting:
    """The counts of one process. `version` grows with each."""

    def __init__(self) -> None:
        self.version = 0
        self._functions: dict[str, CallCounters] = {}

    def of(self, key: str) -> CallCounters:
        """For counting: what is changed in it counts as a change."""
        self.version += 1
        counted = self._functions.get(key)
        if counted is None:
            counted = self._functions[key] = CallCounters(key)
        return counted

    def enqueued(self, key: str, status: int, seconds: float) -> None:
        self.of(key).enqueued.setdefault(status, Timings()).observe(seconds)

    def attempted(self, key: str, status: int, seconds: float) -> None:
        self.of(key).attempts.setdefault(status, Timings()).observe(seconds)

    def ended(self, key: str, state: str, number: int = 1) -> None:
        counted = self.of(key)
        counted.ended[state] = counted.ended.get(state, 0) + number

    def called_back(self, key: str, how: str) -> None:
        counted = self.of(key)
        counted.callbacks[how] = counted.callbacks.get(how, 0) + 1

    def running(self, key: str, number: int) -> None:
        """Of now; no count, so it changes no version."""
        if number or key in self._functions:
            self._functions.setdefault(key, CallCounters(key)).running = number

    def all(self) -> list[CallCounters]:
        return list(self._functions.values())


def add_up_calls(parts: Iterable[Iterable[CallCounters]]) -> list[CallCounters]:
    """The sum of what several processes counted, by key. Leaves the parts as they are."""
    sums: dict[str, CallCounters] = {}
    for part in parts:
        for counted in part:
            sums.setdefault(counted.key, CallCounters(counted.key)).add(counted)
    return [sums[key] for key in sorted(sums)]
