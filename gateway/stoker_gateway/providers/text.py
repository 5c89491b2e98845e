"""So much of a foreign text as is passed on to people."""

from __future__ import annotations

_MAX = 500


def one_line(text: str) -> str:
    """The text in one line, cut."""
    return " ".join(text.split())[:_MAX]
