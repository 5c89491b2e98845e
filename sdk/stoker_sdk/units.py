"""Durations, quantities and times, read and written the way the contract's clients do."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from stoker_sdk.errors import BadInput

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?")
_QUANTITY_FACTOR = {"": Decimal(1), "m": Decimal("0.001")}
_QUANTITY_FACTOR |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)}
_QUANTITY_FACTOR |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}

GO_ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Go prints for a time that was never set (contract section 2.3)."""


def parse_duration(text: str, what: str = "duration") -> float:
    """Seconds in a Go duration (`1m30s`) or a bare number of seconds (contract sections 2.8 and 8.1).

    `what` names the value in the error. Raises `BadInput`.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"{what} {text[:40]!r} is not a duration: write seconds (30), or units (1m30s, 500ms, 2h)")
    return sum(float(number) * _DURATION_SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The shortest Go duration for a number of seconds: `90` becomes `1m30s`, `0.5` becomes `500ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, seconds - whole // 60 * 60
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return text + (f"{rest:g}s" if rest or not text else "")


def parse_quantity(text: str, what: str = "quantity") -> Decimal:
    """The number that a Kubernetes quantity stands for: bytes for memory, cores for CPU. Raises `BadInput`."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"{what} {text[:40]!r} is not a quantity: write a number with a unit (128Mi, 1Gi, 200m, 0.5)")
    number, unit = match.group(1), match.group(2) or ""
    if unit[:1] in ("e", "E") and len(unit) > 1 and unit[1] != "i":
        return Decimal(number + unit)
    return Decimal(number) * _QUANTITY_FACTOR[unit]


def now_rfc3339() -> str:
    """The present time in UTC, to the second: `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_rfc3339(nanoseconds: int) -> str:
    """A Unix time in nanoseconds, in UTC, to the millisecond: `2026-01-31T12:00:00.250Z`."""
    return f"{_to_the_second(nanoseconds // 1_000_000_000)}.{nanoseconds // 1_000_000 % 1000:03d}Z"


@lru_cache(maxsize=64)  # a worker writes four times of each call, nearly all of the same second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_rfc3339(text: str, what: str = "time") -> datetime:
    """A time with its zone. Raises `BadInput` for anything else than RFC 3339."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise BadInput(f"{what} {text[:40]!r} is not a time: write RFC 3339, such as 2026-01-31T12:00:00Z")
    return moment
