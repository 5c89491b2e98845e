"""The moments that a cron expression names, in a zone whose clocks are changed. Pure.

The library walks along the clock on the wall; here is what happens where that clock jumps, by an hour or by less (Lord
Howe Island's jumps by half of one). crontab(5) of Debian has the rules: an expression with fixed minutes and hours is
due once, with a `*` in either the hours that really pass count.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim

_DAY = 86400


def moments(expression: str, zone: tzinfo, after: int) -> Iterator[int]:
    """The moments after this one, in Unix seconds, in order, each once; none when there is none in fifty years."""
    minute, hour = expression.split()[-5:-3]
    fixed = not minute.startswith("*") and not hour.startswith("*")
    since, offset = after, _offset(zone, after)
    while True:
        for wall in CronSim(expression, datetime.fromtimestamp(after + offset, UTC).replace(tzinfo=None)):
            moment = int(wall.replace(tzinfo=UTC).timestamp()) - offset
            if (change := _first_change(zone, since, moment)) is not None:
                break
            after = since = moment
            if not (fixed and datetime.fromtimestamp(moment, zone).fold):
                yield moment
        else:
            return
        former, offset = offset, _offset(zone, change)
        since, after = change, change - 1
        if fixed and moment + former < change + offset:  # what is left out comes right after it
            after = change
            yield change


def _first_change(zone: tzinfo, after: int, until: int) -> int | None:
    """The first moment after one and up to another at which the offset is not that of before."""
    offset, low = _offset(zone, after), after
    while low < until:
        high = min(low + _DAY, until)
        if _offset(zone, high) != offset:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            return high
        low = high
    return None


def _offset(zone: tzinfo, moment: int) -> int:
    """Seconds that the clock on the wall is ahead of UTC."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
