"""Environment substitution on a stack file's text, before it is YAML (contract section 9.3).

It works on text, because the contract does: a value may hold YAML, and comments are substituted too. Bare
`$V` is left alone, so that shell fragments in a stack file survive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from stoker_sdk.errors import BadInput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULT_OPERATORS = (":-", ":=", ":?", ":+", "=")
_CHANGES: dict[str, Callable[[str], str]] = {
    "^^": str.upper,
    ",,": str.lower,
    "^": lambda value: value[:1].upper() + value[1:],
    ",": lambda value: value[:1].lower() + value[1:],
}
_ESCAPES = ("$$", "\\\\", "\\/")
_MAX_DEPTH = 20


def substitute(text: str, environment: Mapping[str, str]) -> str:
    """The text with every `${V}` replaced by its value, or by nothing when it is not set.

    `${V:-d}` (also `:=`, `=`, `:?`, `:+`, all the same there) gives `d` when V is not set or empty; `d` may
    hold further references. `${V^^}`, `${V,,}`, `${V^}`, `${V,}` and `${#V}` change case and count. `$$`,
    `\\\\` and `\\/` stand for `$`, `\\` and `/`. Raises `BadInput` with the line for what is none of these.
    """
    return _Scanner(text, environment).until_end()


class _Scanner:
    """One pass over the text; `position` only moves forward, so the work is linear in the length."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._text = text
        self._environment = environment
        self._position = 0
        self._depth = 0

    def until_end(self) -> str:
        return self._literal(closing="")

    def _literal(self, closing: str) -> str:
        """Everything up to `closing` (which stays unread), or to the end of the text when that is empty."""
        parts: list[str] = []
        while self._position < len(self._text):
            pair = self._text[self._position : self._position + 2]
            if closing and pair[0] == closing:
                break
            if pair in _ESCAPES:
                parts.append(pair[1])
                self._position += 2
            elif pair == "${":
                parts.append(self._reference())
            else:
                parts.append(pair[0])
                self._position += 1
        return "".join(parts)

    def _reference(self) -> str:
        start = self._position
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(start, f"references are nested more than {_MAX_DEPTH} deep")
        self._position += 2
        value = self._expression(start)
        if self._text[self._position : self._position + 1] != "}":
            raise self._error(start, "there is no '}' where the reference should end")
        self._position += 1
        self._depth -= 1
        return value

    def _expression(self, start: int) -> str:
        counted = self._take("#")
        match = _NAME.match(self._text, self._position)
        if match is None:
            raise self._error(start, "a variable's name must follow '${'; write $${ for a literal '${'")
        self._position = match.end()
        value = self._environment.get(match.group(), "")
        if counted:
            return str(len(value))
        for operator in _DEFAULT_OPERATORS:
            if self._take(operator):
                default = self._literal(closing="}")
                return value or default
        for operator, change in _CHANGES.items():
            if self._take(operator):
                return change(value)
        if self._text[self._position : self._position + 1] not in ("}", ""):
            raise self._error(start, "only ${V}, ${V:-default}, ${V^^}, ${V,,} and ${#V} are supported")
        return value

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._position)
        if found:
            self._position += len(text)
        return found

    def _error(self, start: int, why: str) -> BadInput:
        line = self._text.count("\n", 0, start) + 1
        column = start - (self._text.rfind("\n", 0, start) + 1) + 1
        shown = self._text[start : start + 30].split("\n")[0]
        return BadInput(f"{line}:{column}: {shown!r} cannot be substituted: {why}")
