"""From a schedule to its ticks, and from a tick to the call that is made. Pure: nothing here reads a clock.

A tick is a moment on the wall clock, in Unix seconds; its call's id is made of the function, the schedule and that
moment, so that whoever finds a tick due means the same call. For the same reason `@every` counts from the Unix epoch,
not from the start of a process.

When clocks are changed for summer and winter, an expression with fixed hours is due once: what falls into the hour that
is left out comes right after it, what falls into the hour that comes twice comes in its first. With a `*` in minutes or
hours, the hours that really pass count.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import islice, takewhile

import msgspec

from stoker_gateway.queue.cron import moments
from stoker_sdk.names import FunctionKey
from stoker_sdk.schedule import DESCRIPTORS, TOPIC, Schedule, every_seconds, split_zone
from stoker_sdk.units import format_rfc3339

GRACE = 15 * 60
"""Seconds that a tick may be late and still be run. Older ones count as missed."""

MOST_AT_ONCE = 60
"""Ticks of one schedule that are run at once; of more, the latest are, and the others count as missed."""

MOST_COUNTED = 1000
"""Missed ticks are counted up to here at once: the count after a year of silence shall not hold up the others."""

DAY = 86400
"""A mark that lies further ahead than this was made by a clock that was wrong."""


@dataclass(frozen=True)
class Plan:
    """One schedule of one function, ready to be asked."""

    key: FunctionKey
    schedule: Schedule

    @property
    def digest(self) -> str:
        """What tells this schedule from the others of its function, in subjects and ids."""
        return _digest(msgspec.json.encode(self.schedule))

    def call_id(self, tick: int) -> str:
        """The id of a tick's call: the same on every machine."""
        return "tick-" + _digest(f"{self.key} {self.digest} {tick}".encode())

    def after(self, moment: int) -> Iterator[int]:
        """The ticks after a moment, in order, each once."""
        zone, expression = split_zone(self.schedule.cron)
        if expression.startswith("@every"):
            return _every(every_seconds(expression), moment)
        expression = DESCRIPTORS.get(expression, expression).replace("?", "*")
        return moments(expression, _zone(zone or self.schedule.timezone), moment)

    def next(self, moment: int) -> int | None:
        """The first tick after a moment; None when there is none in fifty years."""
        return next(self.after(moment), None)


@dataclass(frozen=True)
class Due:
    """What is due: ticks to run, the number of those that were missed, and the latest of these (0: none)."""

    run: tuple[int, ...] = ()
    missed: int = 0
    last_missed: int = 0

    @property
    def is_any(self) -> bool:
        return bool(self.run or self.missed)


@dataclass(frozen=True)
class TickCall:
    """The call of one tick. `missed` is how many ticks it stands for beside its own."""

    key: FunctionKey
    id: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def start(marked: int | None, created: int, now: int) -> int:
    """The moment after which ticks count: the schedule's mark, but never before its function was created (the mark
    may be that of an earlier function of the same name). Now, without a mark, or with one that a wrong clock made.
    """
    if marked is None or marked > now + DAY:
        return now
    return max(marked, created) if created <= now + DAY else marked


def due(plan: Plan, until: int, now: int) -> Due:
    """The ticks after `until`, up to and with `now`; those that are later than `GRACE` are missed."""
    edge = max(until, now - GRACE - 1)
    ticks = tuple(takewhile(lambda tick: tick <= now, plan.after(edge)))
    late = list(islice(takewhile(lambda tick: tick <= edge, plan.after(until)), MOST_COUNTED))
    late += ticks[:-MOST_AT_ONCE]
    return Due(ticks[-MOST_AT_ONCE:], len(late), late[-1] if late else 0)


def tick_call(plan: Plan, tick: int, missed: int = 0) -> TickCall:
    """The call of a tick, as the cron connector makes it (contract section 13.1), and with the tick's time."""
    headers = [
        ("X-Topic", TOPIC),
        ("X-Connector", "stoker"),
        ("X-Stoker-Tick", format_rfc3339(tick * 1_000_000_000).replace(".000Z", "Z")),
    ]
    if missed:
        headers.append(("X-Stoker-Missed", str(missed)))
    schedule = plan.schedule
    return TickCall(plan.key, plan.call_id(tick), schedule.path, tuple(headers), schedule.body.encode())


def _every(period: int, moment: int) -> Iterator[int]:
    tick = moment - moment % period
    while True:
        tick += period
        yield tick


def _zone(name: str) -> tzinfo:
    return zoneinfo.ZoneInfo(name) if name and name != "UTC" else UTC


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
