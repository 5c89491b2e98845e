"""A core that the kernel's own threads stay off, and do not, in turns of a second.

The kernel looks after its memory, its disks and its timers in threads of its own, and puts them where nobody works.
While the other core is quiet that is hardly ever the core of what is measured; while it is busy it always is, whoever
keeps it busy. In the turns behind the shield these threads have the other cores, as on machines whose cores are set
apart for a purpose; what is measured, and what is beside it, are as they always are.

Other people's processes are left where they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped, unused-ignore]

from bench.steady import Call

_TURN_SECONDS = 1.0
_KTHREADD = 2  # the parent of all threads of the kernel


@dataclass(frozen=True)
class _Turn:
    """From when to when, by `time.perf_counter`, the core was shielded, or was not."""

    shielded: bool
    since: float
    until: float

    def has(self, call: Call) -> bool:
        return self.since <= call.begun and call.ended <= self.until


class Shield:
    """Turns are taken while the block runs; afterwards the kernel's threads may run where they might before.

    To move them takes root's rights; without these no turn is shielded.
    """

    def __init__(self, core: int) -> None:
        self._core = core
        self._turns: list[_Turn] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take_turns, name="shield")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def behind(self, calls: Iterable[Call]) -> list[float]:
        """Milliseconds of the calls that began and ended while the core was shielded."""
        return self._during(calls, shielded=True)

    def without(self, calls: Iterable[Call]) -> list[float]:
        """The same for the turns in which it was not."""
        return self._during(calls, shielded=False)

    def _during(self, calls: Iterable[Call], *, shielded: bool) -> list[float]:
        turns = [turn for turn in self._turns if turn.shielded == shielded]
        return [call.ms for call in calls if any(turn.has(call) for turn in turns)]

    def _take_turns(self) -> None:
        movable = _movable_threads(self._core) if os.geteuid() == 0 else {}
        shielded = bool(movable)
        try:
            while not self._stop.is_set():
                for pid, cores in movable.items():
                    _put(pid, cores - {self._core} if shielded else cores)
                since = time.perf_counter()
                self._stop.wait(_TURN_SECONDS)
                self._turns.append(_Turn(shielded, since, time.perf_counter()))
                shielded = not shielded and bool(movable)
        finally:
            for pid, cores in movable.items():
                _put(pid, cores)


def _movable_threads(core: int) -> dict[int, set[int]]:
    """The kernel's threads that may use this core and others, with all cores that they may use."""
    with suppress(psutil.NoSuchProcess):
        threads = psutil.Process(_KTHREADD).children()
        cores = {thread.pid: _cores(thread.pid) for thread in threads}
        return {pid: these for pid, these in cores.items() if core in these and len(these) > 1}
    return {}  # in a container the kernel's threads cannot be seen


def _cores(pid: int) -> set[int]:
    with suppress(OSError):  # it has ended
        return os.sched_getaffinity(pid)
    return set()


def _put(pid: int, cores: set[int]) -> None:
    with suppress(OSError):  # it has ended, or is one of those that serve a fixed set of cores
        os.sched_setaffinity(pid, cores)
