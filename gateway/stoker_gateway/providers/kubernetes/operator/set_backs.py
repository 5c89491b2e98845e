"""When something is set back again, so that two who both insist do not write for ever: pure values.

No clock of its own: the caller says what time it is, in seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_MOST_DOUBLINGS = 30


class SetBacks(Generic[K]):
    """The first is at once. The next comes `first` seconds later at the earliest, each further one after twice as
    long, at most `longest`. After `quiet` seconds without one, all of them are forgotten.
    """

    def __init__(self, first: float = 0.5, longest: float = 300.0, quiet: float = 600.0) -> None:
        self._first, self._longest, self._quiet = first, longest, quiet
        self._done: dict[K, tuple[int, float]] = {}
        """How many, and the time of the last."""

    def wait(self, key: K, now: float) -> float:
        """Seconds until the key's next may be."""
        count, last = self._done.get(key, (0, now))
        if not count or now - last >= self._quiet:
            return 0.0
        return max(0.0, last + min(self._longest, self._first * 2.0 ** min(count - 1, _MOST_DOUBLINGS)) - now)

    def add(self, key: K, now: float) -> None:
        """One was done."""
        self._done = {known: one for known, one in self._done.items() if now - one[1] < self._quiet}
        self._done[key] = (self._done.get(key, (0, now))[0] + 1, now)
