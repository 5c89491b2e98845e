"""Keys that wait to be worked on: each once, however often it is added, and later when it failed before.

No clock and no task of its own: the caller says what time it is, in seconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_MOST_DOUBLINGS = 30


class WorkQueue(Generic[K]):
    """A key that is worked on is not given out again until `done` or `failed`; what is added meanwhile comes then.

    A key that failed waits `first` seconds, twice as long each further time, at most `longest`; and all retries
    together come at no more than `rate` a second, after a `burst` of them.
    """

    def __init__(self, first: float = 0.5, longest: float = 300.0, rate: float = 10.0, burst: int = 50) -> None:
        self._first, self._longest = first, longest
        self._spacing, self._lead = 1 / rate, burst / rate
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._busy: dict[K, bool] = {}
        """Whether it was added again."""
        self._failures: dict[K, int] = {}
        self._next_retry = 0.0

    def add(self, key: K, now: float) -> None:
        """To be worked on, when its pause is over if it has failed."""
        if key in self._busy:
            self._busy[key] = True
        elif key not in self._due:
            self._put(key, now)

    def add_changed(self, key: K, now: float) -> None:
        """What is to be done has changed, so that former failures count no more."""
        self._failures.pop(key, None)
        if key in self._busy:
            self._busy[key] = True
        else:
            self._put(key, now)

    def take(self, now: float) -> K | None:
        """The key that has waited longest, if any is due."""
        due = self.next_time()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._busy[key] = False
        return key

    def next_time(self) -> float | None:
        """When the next key is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: K, now: float) -> None:
        self._failures.pop(key, None)
        if self._busy.pop(key):
            self._put(key, now)

    def failed(self, key: K, now: float) -> None:
        """It comes again, later each time; if it was added meanwhile, that counts as one of these times."""
        self._busy.pop(key)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._longest, self._first * 2 ** min(failures - 1, _MOST_DOUBLINGS))
        self._next_retry = max(self._next_retry + self._spacing, now - self._lead)
        self._put(key, max(now + pause * random.uniform(0.8, 1.0), self._next_retry))

    def _put(self, key: K, at: float) -> None:
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
