"""What is kept of a call: `result` and `X-Stoker-Keep-Result` (how long), `idempotent` (whether). Pure."""

from __future__ import annotations

from typing import Final

from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_duration

LONGEST: Final = 7 * 86400.0
"""Seconds; as long as it is known how a call ended."""


def check_keep(text: str, what: str = "result") -> float:
    """Seconds for which an answer is kept. Raises `BadInput`."""
    seconds = parse_duration(text, what)
    if not 1 <= seconds <= LONGEST:
        raise BadInput(f"{what} is {text[:40]!r}: write a duration from 1s to 168h")
    return seconds


def check_idempotent(text: str) -> bool:
    """Raises `BadInput`."""
    if text.lower() not in ("true", "false", ""):
        raise BadInput(f"idempotent must be true or false, and is {text[:40]!r}")
    return text.lower() == "true"
