"""When a function is called by the clock: its schedules, as its annotations say them, checked.

An expression is five fields, or a descriptor (`@hourly`, `@every 5m`), with or without `CRON_TZ=ZONE` before it, as
the contract's cron connector reads them (section 13.1). Which moments that gives is for those to say who run schedules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.names import check_path
from stoker_sdk.units import parse_duration

SCHEDULE = "stoker.dev/schedule"
"""The annotation with the schedules of a function: a JSON list of `Schedule`."""

TOPIC = "cron-function"
"""The value of the annotation `topic` that makes the annotation `schedule` one for the clock (section 13.1)."""

MAX_SCHEDULES = 100
"""Of one function."""

MISSED = ("skip", "run-once")
"""What becomes of ticks that nobody could run at their time: nothing, or one call for all of them."""

DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Names for expressions."""

_ZONES = ("CRON_TZ=", "TZ=")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?P<first>\*|\?|[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?(?:/(?P<step>[0-9]{1,3}))?")
_MAX_LENGTH = 200


class Schedule(msgspec.Struct, omit_defaults=True, frozen=True):
    """One time plan: `cron` (section 13.1), its zone (empty: UTC), the call that is made, and what becomes of ticks
    that were missed (empty: skip).
    """

    cron: str
    timezone: str = ""
    body: str = ""
    path: str = ""
    missed: str = ""


def schedules_of(annotations: Mapping[str, str] | None) -> tuple[Schedule, ...]:
    """The checked schedules of a function: ours, and those of the cron connector's annotations. One that is there
    twice counts once. Raises `BadInput`.
    """
    annotations = annotations or {}
    found = [*_ours(annotations.get(SCHEDULE, "")), *_connectors(annotations)]
    if len(found) > MAX_SCHEDULES:
        raise BadInput(f"the function has {len(found)} schedules, and {MAX_SCHEDULES} are the most")
    for schedule in found:
        check_schedule(schedule)
    return tuple(dict.fromkeys(found))


def _ours(text: str) -> list[Schedule]:
    try:
        return msgspec.json.decode(text, type=list[Schedule]) if text else []
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadInput(
            f'annotation {SCHEDULE}: {error}; write a JSON list such as [{{"cron": "*/5 * * * *"}}]'
        ) from None


def _connectors(annotations: Mapping[str, str]) -> list[Schedule]:
    texts = annotations.get("schedule", "").split(";") if annotations.get("topic") == TOPIC else []
    return [Schedule(text.strip()) for text in texts if text.strip()]


def check_schedule(schedule: Schedule) -> None:
    """Raise `BadInput` for the first value that cannot be used."""
    for key, check in SCHEDULE_CHECKS.items():
        if key == "cron" or getattr(schedule, key):
            check(getattr(schedule, key))
    zone = split_zone(schedule.cron)[0]
    if zone and schedule.timezone and zone != schedule.timezone:
        raise BadInput(f"the schedule has two time zones, {zone} and {schedule.timezone}: leave one of them out")


def split_zone(text: str) -> tuple[str, str]:
    """The time zone that stands before an expression (or an empty string), and the expression."""
    prefix = next((prefix for prefix in _ZONES if text.startswith(prefix)), None)
    if prefix is None:
        return "", text
    zone, _, expression = text[len(prefix) :].partition(" ")
    return zone, expression.strip()


def check_cron(text: str) -> None:
    """Raise `BadInput` unless the text is a cron expression of five fields, or a descriptor, that is ever due."""
    if len(text) > _MAX_LENGTH:
        raise BadInput(f"a schedule has at most {_MAX_LENGTH} characters")
    zone, expression = split_zone(text)
    if expression != text:
        check_timezone(zone)
    if expression.startswith("@"):
        _check_descriptor(expression)
    else:
        _check_fields(expression)
        _check_is_ever_due(expression)


def _check_fields(text: str) -> None:
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise BadInput(
            f"schedule {text[:60]!r} is not five fields (minute, hour, day, month, weekday), "
            "nor @hourly, @daily, @weekly, @monthly, @yearly or @every DURATION"
        )
    for field, (name, lowest, highest, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _is_part(part, lowest, highest, names):
                raise BadInput(f"schedule {text[:60]!r}: {part!r} is no {name}: it goes from {lowest} to {highest}")


def _check_is_ever_due(text: str) -> None:
    from cronsim import CronSim, CronSimError  # only who has a schedule waits for it

    try:
        due = next(CronSim(text.replace("?", "*"), datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError:
        due = None
    if due is None:
        raise BadInput(f"schedule {text[:60]!r} is never due: no month that it names has such a day")


def check_timezone(name: str) -> None:
    """Raise `BadInput` unless the machine knows a time zone of that name, such as `Europe/Berlin`."""
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise BadInput(f"time zone {name[:60]!r} is not known: write it as Europe/Berlin or UTC") from None


def _check_descriptor(text: str) -> None:
    if text.partition(" ")[0] == "@every":
        every_seconds(text)
    elif text not in DESCRIPTORS:
        raise BadInput(f"schedule {text[:60]!r} is none of {', '.join(DESCRIPTORS)} and @every DURATION")


def every_seconds(text: str) -> int:
    """The period of `@every DURATION`, in whole seconds. Raises `BadInput`."""
    seconds = parse_duration(text.partition(" ")[2], "@every")
    if not 1 <= seconds <= 366 * 86400:
        raise BadInput(f"{text[:60]!r}: the duration is at least a second and at most a year, such as @every 5m")
    return int(seconds)


def check_missed(text: str) -> None:
    """Raise `BadInput` unless the text says what becomes of missed ticks."""
    if text not in MISSED:
        raise BadInput(f"missed {text[:40]!r} is none of {', '.join(MISSED)}")


def _is_part(part: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or (match["step"] is not None and int(match["step"]) == 0):
        return False
    if match["first"] in ("*", "?"):
        return match["last"] is None
    first = _number(match["first"], names, lowest)
    last = first if match["last"] is None else _number(match["last"], names, lowest)
    return lowest <= first <= last <= highest


def _number(text: str, names: tuple[str, ...], lowest: int) -> int:
    """What a number or a name stands for, or -1. The first name is the lowest number."""
    if text.isdigit():
        return int(text)
    return names.index(text) + lowest if text in names else -1


SCHEDULE_CHECKS: Mapping[str, Callable[[str], object]] = {
    "cron": check_cron,
    "timezone": check_timezone,
    "path": check_path,
    "missed": check_missed,
}
SCHEDULE_KEYS = ("cron", "timezone", "body", "path", "missed")
