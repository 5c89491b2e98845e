"""An answer as it is kept: a line of JSON with its head, then the body byte for byte. Pure.

Whoever can publish to the broker can write anything, so what is read is checked before it is sent to anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.function import ANNOTATION_PREFIX
from stoker_sdk.keeping import check_keep

MAX_RESULT: Final = 16 * 1024 * 1024
"""Bytes of an async call's answer that are kept; a longer one is cut."""
TRUNCATED: Final = "X-Stoker-Truncated"
VERSION: Final = 1

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class BadAnswer(ValueError):
    """The message is no answer that this release can read; the text says why."""


class KeptAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`fields` are header names and values in latin-1; `length` is the body's as announced, None if it was not."""

    v: int
    status: int
    fields: list[tuple[str, str]] = []
    length: int | None = None
    cut: bool = False


def encode(answer: KeptAnswer, body: bytes) -> bytes:
    return b"%b\n%b" % (msgspec.json.encode(answer), body)


def decode(payload: bytes) -> tuple[KeptAnswer, bytes]:
    """The answer and its body. Raises `BadAnswer`."""
    line, _, body = payload.partition(b"\n")
    try:
        answer = msgspec.json.decode(line, type=KeptAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadAnswer(f"its first line is not that of an answer: {error}") from error
    if answer.v != VERSION:
        raise BadAnswer(f"it has version {answer.v}, and this release reads version {VERSION}")
    if not 200 <= answer.status < 1000 or not all(_NAME.fullmatch(n) and _VALUE.fullmatch(v) for n, v in answer.fields):
        raise BadAnswer("its status or a header cannot be sent")
    return answer, body


def text_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def fields_of(block: bytes) -> list[tuple[str, str]]:
    """The fields of a block of header lines that is ready for the wire."""
    pairs = (line.partition(b": ") for line in block.split(b"\r\n") if line)
    return text_fields((name, value) for name, _, value in pairs)


def block_of(fields: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


def result_seconds(annotations: Mapping[str, str]) -> float:
    """How long a function's results are kept, 0 for not at all. What cannot be read counts as not there."""
    try:
        text = annotations.get(ANNOTATION_PREFIX + "result", "")
        return check_keep(text) if text else 0.0
    except BadInput:
        return 0.0
