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
_TRIMS = ("##", "#", "%%", "%")
_REPLACEMENTS = ("//", "/#", "/%", "/")
_SLICE = re.compile(r" ?(-?\d{1,9})(?::(\d{1,9}))?(?=\})")
_GLOB_PART = re.compile(r"\[!?[^\]]+\]|.", re.DOTALL)
_ESCAPES = ("$$", "\\\\", "\\/")
_MAX_DEPTH = 20

MAX_PATTERN = 100
MAX_RESULT = 4 << 20
"""Characters that the references of one text may bring in: a few letters of a stack must not fill the memory."""


def substitute(text: str, environment: Mapping[str, str]) -> str:
    """The text with every `${V}` replaced by its value, or by nothing when it is not set.

    `${V:-d}` (also `:=`, `=`, `:?`, `:+`, all the same there) gives `d` when V is not set or empty; `d` may
    hold further references. `${V^^}`, `${V,,}`, `${V^}`, `${V,}` and `${#V}` change case and count;
    `${V#p}`, `##`, `%` and `%%` trim, `${V:offset:length}` cuts, `${V/a/b}`, `//`, `/#` and `/%` replace. `$$`,
    `\\\\` and `\\/` stand for `$`, `\\` and `/`. Raises `BadInput` with the line for what is none of these.
    """
    return _Scanner(text, environment).until_end()


def _trimmed(value: str, operator: str, pattern: str) -> str:
    """The value without the shortest (`#`, `%`) or longest (`##`, `%%`) beginning or end that the pattern matches."""
    parts = _GLOB_PART.findall(pattern)
    if operator[0] == "%":
        ends = _matched_lengths(value[::-1], parts[::-1])
        return value[: len(value) - _chosen(ends, operator)]
    return value[_chosen(_matched_lengths(value, parts), operator) :]


def _chosen(ends: set[int], operator: str) -> int:
    return (max(ends) if len(operator) == 2 else min(ends)) if ends else 0


def _matched_lengths(value: str, parts: list[str]) -> set[int]:
    """How many first characters of the value the pattern's parts match; all possibilities at once, so that no
    pattern takes longer than value times parts.
    """
    ends = {0}
    for part in parts:
        if part == "*":
            ends = set(range(min(ends), len(value) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(value) and _matches(value[end], part)}
    return ends


def _matches(character: str, part: str) -> bool:
    if part == "?":
        return True
    if len(part) > 2 and part[0] == "[":
        import fnmatch

        return fnmatch.fnmatchcase(character, part)
    return character == part


class _Scanner:
    """One pass over the text; `position` only moves forward, so the work is linear in the length."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._text = text
        self._environment = environment
        self._position = 0
        self._depth = 0
        self._brought_in = 0

    def until_end(self) -> str:
        return self._literal(closing="")

    def _literal(self, closing: str) -> str:
        """Everything up to a character of `closing` (which stays unread), or to the end of the text when that
        is empty.
        """
        parts: list[str] = []
        while self._position < len(self._text):
            pair = self._text[self._position : self._position + 2]
            if pair[0] in closing:
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
        self._brought_in += len(value)
        if self._brought_in > MAX_RESULT:
            raise self._error(start, f"the references stand for more than {MAX_RESULT >> 20} MiB")
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
        for operator in _TRIMS:
            if self._take(operator):
                return _trimmed(value, operator, self._pattern(start))
        for operator in _REPLACEMENTS:
            if self._take(operator):
                return self._replaced(value, operator)
        if self._take(":"):
            return self._slice(value, start)
        if self._text[self._position : self._position + 1] not in ("}", ""):
            raise self._error(start, "only ${V}, ${V:-default}, ${V^^}, ${V#prefix}, ${V:0:3}, ${V/a/b} and their like")
        return value

    def _pattern(self, start: int) -> str:
        pattern = self._literal(closing="}")
        if len(pattern) > MAX_PATTERN:
            raise self._error(start, f"the pattern has more than {MAX_PATTERN} characters")
        return pattern

    def _replaced(self, value: str, operator: str) -> str:
        old = self._literal(closing="/}")
        new = self._literal(closing="}") if self._take("/") else ""
        if not old:
            return value
        if operator == "/#":
            return new + value.removeprefix(old) if value.startswith(old) else value
        if operator == "/%":
            return value.removesuffix(old) + new if value.endswith(old) else value
        return value.replace(old, new, -1 if operator == "//" else 1)

    def _slice(self, value: str, start: int) -> str:
        match = _SLICE.match(self._text, self._position)
        if match is None:
            raise self._error(start, "an offset and a length are written as ${V:2:3}")
        self._position = match.end()
        offset = int(match.group(1))
        begin = offset if offset >= 0 else max(0, len(value) + offset)
        return value[begin:] if match.group(2) is None else value[begin : begin + int(match.group(2))]

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
