"""Templates, and how values are written in them: times, durations, addresses. Everything is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_rfc3339

FOLDER: Final = Path(__file__).parent
STATIC: Final[Mapping[str, str]] = {
    "style.css": "text/css",
    "live.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Served files, and their types."""

_TONES: Final = {
    "good": ("succeeded", "ready", "deployed", "unchanged", "serving"),
    "bad": ("failed", "unhealthy"),
    "busy": ("running", "deploying", "building", "starting"),
}


@cache
def environment() -> Environment:
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(FOLDER / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"ago": ago, "seconds": seconds, "tone": tone, "short": short, "number": number, "clock": clock}
    made.globals |= {"url": url, "static": static_url}
    return made


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(values)


def url(*segments: object) -> str:
    """A page's address; each segment is one of the path, whatever is in it."""
    return "/ui/" + "/".join(quote(str(segment), safe="") for segment in segments)


def static_url(name: str) -> str:
    """With a digest of the content, so that it may be kept for ever."""
    return f"/ui/static/{name}?{_digest(name)}"


@cache
def static_file(name: str) -> bytes:
    return (FOLDER / "static" / name).read_bytes()


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(static_file(name)).hexdigest()[:12]


def tone(state: str) -> str:
    """Which colour a state has, beside its word."""
    return next((name for name, states in _TONES.items() if state in states), "calm")


def short(text: str) -> str:
    """A commit or a digest, as far as people read it."""
    return text.removeprefix("sha256:")[:7]


def number(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds(value: float) -> str:
    """A duration in seconds, for people."""
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def ago(text: str) -> str:
    """How long ago an RFC 3339 time was; what is none is empty."""
    at = _time(text)
    if at is None:
        return ""
    passed = (datetime.now(UTC) - at).total_seconds()
    if passed < 60:
        return "just now"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if (count := int(passed // size)) >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return ""


def clock(text: str) -> str:
    """The time of day, in UTC."""
    at = _time(text)
    return at.astimezone(UTC).strftime("%H:%M:%S") if at else ""


def between(earlier: str, later: str) -> float:
    """Seconds from one RFC 3339 time to another, or to now; 0 where one is none."""
    begin, end = _time(earlier), _time(later) if later else datetime.now(UTC)
    return max(0.0, (end - begin).total_seconds()) if begin and end else 0.0


def _time(text: str) -> datetime | None:
    if not text or text.startswith("0001-"):
        return None
    try:
        return parse_rfc3339(text)
    except BadInput:
        return None
