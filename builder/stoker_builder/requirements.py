"""requirements.txt as a value: what counts in it, and what it must not contain."""

from __future__ import annotations

import re

from stoker_sdk.errors import BadInput

_COMMENT = re.compile(r"(^|\s)#.*")
_REFUSED_OPTION = re.compile(r"(-[rce]|--(requirements?|constraints?|editable))(?![A-Za-z-])|-[rce]\S")
_LOCAL = re.compile(r"([./~]|file:|\S+\s*@\s*(file:|[./~]))")


def normalise(text: str) -> str:
    """The lines that count, each without comments and surrounding space; empty if there are none.

    Order is kept, because options and duplicates depend on it. Raises `BadInput` for lines that lead to other
    files: the text alone must say what is installed, since it is what names the environment.
    """
    lines: list[str] = []
    for number, line in _logical_lines(text):
        line = _COMMENT.sub("", line).strip()
        if _REFUSED_OPTION.match(line) or _LOCAL.match(line):
            raise BadInput(
                f"requirements.txt:{number}: {line[:100]!r} leads to another file: "
                "write the packages themselves into requirements.txt"
            )
        if line:
            lines.append(" ".join(line.split()))
    return "".join(line + "\n" for line in lines)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines with those that end in a backslash joined, each with the number of its first."""
    joined: list[tuple[int, str]] = []
    pending = ""
    first = 1
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        joined.append((first, pending + line))
        pending = ""
    return joined + ([(first, pending)] if pending else [])
