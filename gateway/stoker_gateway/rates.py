"""How many calls from outside an owner's functions may get: the rates that are set, and each proxy's share of one.

A proxy counts against its own share, so that no call asks anybody. Control deals the shares anew each second by what
came to each proxy: together they are the rate, and what moves between proxies lags by that second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker_sdk.errors import BadInput

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/(s|m|h)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_FILE: Final = 4 * 1024 * 1024
NO_LIMIT: Final = 0.0
_EVEN_PART: Final = 0.04


@dataclass(frozen=True)
class Rates:
    """Calls a second: by owner in lower case, and of all others. 0 is no limit."""

    rest: float = NO_LIMIT
    owners: Mapping[str, float] = field(default_factory=dict)

    def of(self, owner: str) -> float:
        return self.owners.get(owner, self.rest)

    @property
    def limits_nobody(self) -> bool:
        return not self.rest and not any(self.owners.values())


def parse_rate(text: str) -> float:
    """Calls a second of `100/s`, `600/m`, `50/h`, or `none`. Raises `BadInput`."""
    if text == "none":
        return NO_LIMIT
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise BadInput(f"rate {text[:40]!r} cannot be read: write calls per s, m or h, such as 100/s, or none")
    return float(match[1]) / _SECONDS[match[2]]


def parse_rates(text: str, rest: float, file: str) -> Rates:
    """Lines `OWNER RATE`; empty ones and those after `#` are skipped. Raises `BadInput` with the line."""
    owners = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise BadInput(f"{file}:{number}: write OWNER and RATE, such as `alice 100/s`")
        try:
            owners[words[0].lower()] = parse_rate(words[1])
        except BadInput as error:
            raise BadInput(f"{file}:{number}: {error}") from None
    return Rates(rest, owners)


def read_rates(path: Path, rest: float) -> Rates:
    """Raises `BadInput`, also for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise BadInput(f"{path}: is larger than {_MAX_FILE >> 20} MiB")
        return parse_rates(content.decode(), rest, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def shares(rate: float, demands: Sequence[float]) -> list[float]:
    """A rate dealt by what each asks for. A part goes evenly to all, so that a proxy which nobody called yet has
    something; of the rest nobody gets less than an even part that it asks for, and what is left is dealt evenly.
    """
    even = rate * _EVEN_PART / len(demands)
    dealt = [0.0] * len(demands)
    rate -= rate * _EVEN_PART
    left, waiting = rate, sorted(range(len(demands)), key=lambda index: demands[index])
    for place, index in enumerate(waiting):
        dealt[index] = min(demands[index], left / (len(waiting) - place))
        left -= dealt[index]
    return [even + share + left / len(demands) for share in dealt]
