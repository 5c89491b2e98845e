"""Processes that come before all else on their core, and are as everybody else, in turns of a second.

Other people's work is on every machine. While one core is busy the kernel moves it to the other, where it delays what
is measured, whoever keeps the first one busy. In the turns with precedence it has to wait; what is left is what the
measured processes, and the kernel on their core, do for the work that is beside them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.steady import Call

_TURN_SECONDS = 1.0
_FIRST, _ORDINARY = -20, 0


@dataclass(frozen=True)
class _Turn:
    """From when to when, by `time.perf_counter`, the processes had this niceness."""

    niceness: int
    since: float
    until: float

    def has(self, call: Call) -> bool:
        return self.since <= call.begun and call.ended <= self.until


class Precedence:
    """Turns are taken while the block runs; afterwards the processes are ordinary.

    To come first takes root's rights; without them every turn is an ordinary one.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._turns: list[_Turn] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take_turns, name="precedence")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def first(self, calls: Iterable[Call]) -> list[float]:
        """Milliseconds of the calls that began and ended while the processes came first."""
        return self._during(calls, _FIRST)

    def ordinary(self, calls: Iterable[Call]) -> list[float]:
        """The same for the turns in which they were as everybody else."""
        return self._during(calls, _ORDINARY)

    def _during(self, calls: Iterable[Call], niceness: int) -> list[float]:
        turns = [turn for turn in self._turns if turn.niceness == niceness]
        return [call.ms for call in calls if any(turn.has(call) for turn in turns)]

    def _take_turns(self) -> None:
        kinds = (_FIRST, _ORDINARY) if os.geteuid() == 0 else (_ORDINARY,)
        while not self._stop.is_set():
            niceness = kinds[len(self._turns) % len(kinds)]
            self._set(niceness)
            since = time.perf_counter()
            self._stop.wait(_TURN_SECONDS)
            self._turns.append(_Turn(niceness, since, time.perf_counter()))
        self._set(_ORDINARY)

    def _set(self, niceness: int) -> None:
        if os.geteuid() != 0:
            return
        for pid in self._pids:
            with suppress(OSError):  # it has ended, or the kernel has no autogroups
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
                # Most kernels look at niceness only within a session, and share the processor out among sessions.
                Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
