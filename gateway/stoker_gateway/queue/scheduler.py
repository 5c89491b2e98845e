"""Fires the schedules of all functions: each tick becomes one stored call, whoever and how many look at the clock.

Any number of control processes run this, without a leader. That a tick runs exactly once holds by three things:

* **The call's id is made of the tick** (`ticks.py`), so two processes that fire it mean the same call. A worker stores
  a call's outcome before it takes the call out of the stream, so at each moment one of both is there, and `Store.put`
  adds nothing where either is. The broker refuses a second message of a call's subject; the outcome is looked for
  before, and once more by the worker before it runs a tick's call, which covers a process that stood still between its
  look and its store. So storing a call again, by whom and whenever it may be, runs nothing again.
* **A mark for each schedule says up to when its ticks are dealt with.** It moves after the calls are stored, never
  before: whoever is killed between them leaves a mark that makes another store them again, which adds nothing. It is
  moved by compare-and-set, so missed ticks are counted by one process only.
* **Marks hold moments of the wall clock and only grow.** A clock that is set back finds its ticks dealt with; one that
  is set forward finds them due, and they are run (up to `ticks.GRACE` late), as after a short outage.

Outcomes are kept for days, and a tick is run only within minutes. Not covered: platforms whose clocks are more than a
day apart disagree about what is due.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from stoker_gateway.queue.ticks import DAY, Due, Plan, TickCall, due, start, tick_call
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.function import FunctionStatus
from stoker_sdk.names import FunctionKey
from stoker_sdk.schedule import SCHEDULE, schedules_of
from stoker_sdk.units import parse_rfc3339

log = logging.getLogger(__name__)

REFRESH = 2.0
"""Seconds between two looks at the list of functions, and at the clock: it may have been set."""

AT_ONCE = 50
"""Schedules that are dealt with at the same time: what is asked of the broker then is bounded."""

_SHORTEST = 0.05
_ANNOTATIONS = (SCHEDULE, "topic", "schedule")


class Mark(msgspec.Struct, frozen=True):
    """Up to when (Unix seconds) the ticks of a schedule are dealt with, and how many were missed in all."""

    until: int
    missed: int = 0


class Marked(NamedTuple):
    """A mark as it is stored, and the revision that a change must name. Revision 0: there is none."""

    mark: Mark | None
    revision: int


class Store(Protocol):
    """Where calls are put. Raises `Unavailable` when it cannot tell that the call is stored."""

    async def put(self, call: TickCall) -> None:
        """Store the call, unless a call of that id is stored or has its outcome already."""


class Marks(Protocol):
    """Where marks are kept. Raises `Unavailable`."""

    async def read(self, plan: Plan) -> Marked: ...

    async def write(self, plan: Plan, mark: Mark, revision: int) -> int:
        """Replace the mark of that revision; returns the new one, or 0 when somebody else was first."""

    async def forget(self, plan: Plan) -> None: ...


@dataclass
class _Watched:
    """One schedule that is fired, and what this process knows of its mark. `next` is None when nothing comes."""

    plan: Plan
    created: int
    until: int = 0
    missed: int = 0
    revision: int = -1
    next: int | None = None

    @property
    def is_read(self) -> bool:
        return self.revision >= 0


class Scheduler:
    """Fires what is due at each `step`; `run` makes the steps. `clock` gives Unix seconds."""

    def __init__(
        self,
        functions: Callable[[], Iterable[FunctionStatus]],
        store: Store,
        marks: Marks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._functions = functions
        self._store = store
        self._marks = marks
        self._clock = clock
        self._read = _Reader()
        self._watched: dict[Plan, _Watched] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._trouble = ""

    async def run(self) -> None:
        """Steps until it is cancelled. A failure is told once, and tried again at the next step."""
        while True:
            await self.step()
            await asyncio.sleep(self._pause())

    async def step(self) -> None:
        """Take up what has changed, and fire what is due now."""
        now = int(self._clock())
        try:
            gone = self._take_up_changes()
        except StokerError as error:
            self._tell([error])
            return
        ready = [each for each in self._watched.values() if not each.is_read or _is_due(each, now)]
        work = [self._fire(each, now) for each in ready] + [self._marks.forget(plan) for plan in gone]
        self._tell([error for error in await asyncio.gather(*work, return_exceptions=True) if error is not None])

    def missed(self) -> dict[FunctionKey, int]:
        """How many ticks were missed, by function, as far as this process knows."""
        sums: dict[FunctionKey, int] = {}
        for plan, watched in self._watched.items():
            sums[plan.key] = sums.get(plan.key, 0) + watched.missed
        return sums

    def _take_up_changes(self) -> list[Plan]:
        """Make `_watched` what the functions say; returns the schedules that are gone."""
        wanted = {plan: created for status in self._functions() for plan, created in self._read(status)}
        gone = [plan for plan in self._watched if plan not in wanted]
        for plan in gone:
            del self._watched[plan]
        for plan, created in wanted.items():
            if plan not in self._watched or self._watched[plan].created != created:
                self._watched[plan] = _Watched(plan, created)
        return gone

    async def _fire(self, watched: _Watched, now: int) -> None:
        """Store the calls that are due, and only then move the mark."""
        async with self._places:
            if not watched.is_read:
                await self._read_mark(watched, now)
            if watched.until > now + DAY:
                watched.until = now
            found = due(watched.plan, watched.until, now)
            for call in calls_of(watched.plan, found):
                await self._store.put(call)
            if found.is_any:
                await self._move_mark(watched, Mark(now, watched.missed + found.missed), now)
            watched.next = watched.plan.next(max(now, watched.until))

    async def _read_mark(self, watched: _Watched, now: int) -> None:
        mark, revision = await self._marks.read(watched.plan)
        watched.until = start(mark.until if mark else None, watched.created, now)
        watched.missed = mark.missed if mark else 0
        watched.revision = revision
        if mark is None:
            await self._move_mark(watched, Mark(now), now)

    async def _move_mark(self, watched: _Watched, mark: Mark, now: int) -> None:
        revision = await self._marks.write(watched.plan, mark, watched.revision)
        if revision:
            _tell_missed(watched.plan, mark.missed - watched.missed)
            watched.until, watched.missed, watched.revision = mark.until, mark.missed, revision
            return
        other, watched.revision = await self._marks.read(watched.plan)  # somebody else has dealt with it
        watched.until = start(other.until if other else None, watched.created, now)
        watched.missed = other.missed if other else 0

    def _pause(self) -> float:
        """Seconds until the next tick, but never longer than until it is time to look again."""
        if self._trouble:
            return REFRESH
        now = self._clock()
        ahead = (each.next - now for each in self._watched.values() if each.next is not None)
        return max(_SHORTEST, min([REFRESH, *ahead]))

    def _tell(self, errors: list[BaseException]) -> None:
        for error in errors:
            if not isinstance(error, StokerError):
                log.error("schedules: %r", error, exc_info=error)
        trouble = next((str(error) for error in errors if isinstance(error, StokerError)), "")
        if trouble and not self._trouble:
            log.warning("schedules wait, and are tried again: %s", trouble)
        elif self._trouble and not trouble:
            log.info("schedules go on")
        self._trouble = trouble


class _Reader:
    """From a function's status to its plans. Reads annotations again only when they have changed."""

    def __init__(self) -> None:
        self._known: dict[FunctionKey, tuple[tuple[str, ...], list[Plan]]] = {}

    def __call__(self, status: FunctionStatus) -> list[tuple[Plan, int]]:
        annotations = status.annotations or {}
        texts = tuple(annotations.get(name, "") for name in _ANNOTATIONS)
        if not any(texts):
            return []
        key = FunctionKey(status.namespace, status.name)
        if key not in self._known or self._known[key][0] != texts:
            self._known[key] = (texts, _plans(key, annotations))
        created = int(parse_rfc3339(status.created_at).timestamp())
        return [(plan, created) for plan in self._known[key][1]]


def calls_of(plan: Plan, found: Due) -> list[TickCall]:
    """The calls for what is due, the oldest first; one stands for all that was missed, where that is asked for."""
    calls = [tick_call(plan, tick) for tick in found.run]
    if found.missed and plan.schedule.missed == "run-once":
        calls.insert(0, tick_call(plan, found.last_missed, found.missed))
    return calls


def _plans(key: FunctionKey, annotations: Mapping[str, str]) -> list[Plan]:
    try:
        return [Plan(key, schedule) for schedule in schedules_of(annotations)]
    except BadInput as error:  # stored by a release that did not check it
        log.warning("function %s is not called by the clock: %s", key, error)
        return []


def _tell_missed(plan: Plan, count: int) -> None:
    if count > 0:
        log.warning("function %s: %d ticks of %r were missed", plan.key, count, plan.schedule.cron)


def _is_due(watched: _Watched, now: int) -> bool:
    is_ahead = watched.until > now + DAY
    return is_ahead or (watched.next is not None and watched.next <= now)
