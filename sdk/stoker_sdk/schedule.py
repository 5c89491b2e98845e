"""When a function is called by the clock: cron expressions and time zones, checked for their shape.

Five fields, or a descriptor (`@hourly`, `@every 5m`), as the contract's cron connector reads them (section
13.1). When the next moment is, is for those to say who run schedules.
"""

from __future__ import annotations

import re

from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_duration

DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

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


def check_cron(text: str) -> None:
    """Raise `BadInput` unless the text is a cron expression of five fields, or a descriptor."""
    if len(text) > _MAX_LENGTH:
        raise BadInput(f"a schedule has at most {_MAX_LENGTH} characters")
    if text.startswith("@"):
        _check_descriptor(text)
        return
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


def check_timezone(name: str) -> None:
    """Raise `BadInput` unless the machine knows a time zone of that name, such as `Europe/Berlin`."""
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise BadInput(f"time zone {name[:60]!r} is not known: write it as Europe/Berlin or UTC") from None


def _check_descriptor(text: str) -> None:
    name, _, duration = text.partition(" ")
    if name == "@every":
        if parse_duration(duration, "@every") <= 0:
            raise BadInput("@every needs a duration of more than nothing, such as @every 5m")
    elif text not in DESCRIPTORS:
        raise BadInput(f"schedule {text[:60]!r} is none of {', '.join(DESCRIPTORS)} and @every DURATION")


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
