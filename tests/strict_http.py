"""A strict reference reading of what a client sent and of what it got back, to hold against the engine's.

Written apart from the engine, from RFC 9112, and slow on purpose. Three things that llhttp forgives are forgiven here
too, since none of them makes one request into two: empty lines before a request, more than one space before its
target or version, and the protocol names RTSP and ICE for 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUEST_LINE = re.compile(rb"([A-Z-]+) +([!-\"$-~]+) +(?:HTTP/(1\.[01])|(?:RTSP|ICE)/(1\.0))")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0-\x08\x0a-\x1f\x7f]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\r\n]*)?\r\n")


@dataclass
class Reading:
    """What stands at one place: a request, or something that may be refused once (`method` is empty)."""

    method: bytes = b""
    more: bool = False
    """Whether anything behind it may be a request."""


def requests_in(data: bytes) -> list[Reading]:
    """The most that may be answered, in order."""
    readings: list[Reading] = []
    at = 0
    while at < len(data):
        while data[at : at + 1] in (b"\r", b"\n"):
            at += 1
        if at == len(data):
            break
        reading, at = _read_request(data, at)
        readings.append(reading)
        if not reading.more:
            break
    return readings


def _read_request(data: bytes, at: int) -> tuple[Reading, int]:
    end = data.find(b"\r\n\r\n", at)
    line, *lines = data[at : end if end >= 0 else len(data)].split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None:
        return Reading(), at
    reading = Reading(request[1])
    fields = [_FIELD.fullmatch(one) for one in lines]
    if end < 0 or not all(fields):
        return reading, at
    named: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field is not None:
            named.setdefault(field[1].lower(), []).append(field[2].strip(b" \t"))
    behind = _end_of_body(data, end + 4, named)
    if behind is None or _closes(named, request[3] or request[4]):
        return reading, at
    reading.more = True
    return reading, behind


def _end_of_body(data: bytes, at: int, named: dict[bytes, list[bytes]]) -> int | None:
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        return None
    if codings:
        return _end_of_chunks(data, at) if codings[0].lower() == b"chunked" else None
    if not lengths:
        return at
    if not re.fullmatch(rb"[0-9]+", lengths[0]):
        return None
    end = at + int(lengths[0])
    return end if end <= len(data) else None


def _end_of_chunks(data: bytes, at: int) -> int | None:
    while chunk := _CHUNK.match(data, at):
        at = chunk.end()
        size = int(chunk[1], 16)
        if size == 0:
            return _end_of_trailers(data, at)
        if data[at + size : at + size + 2] != b"\r\n":
            return None
        at += size + 2
    return None


def _end_of_trailers(data: bytes, at: int) -> int | None:
    while not data.startswith(b"\r\n", at):
        end = data.find(b"\r\n", at)
        if end < 0 or not _FIELD.fullmatch(data, at, end):
            return None
        at = end + 2
    return at + 2


def _closes(named: dict[bytes, list[bytes]], version: bytes) -> bool:
    tokens = {token.strip().lower() for value in named.get(b"connection", []) for token in value.split(b",")}
    return b"close" in tokens or (version == b"1.0" and b"keep-alive" not in tokens)


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) [^\r\n]*")


@dataclass
class Reply:
    status: int
    whole: bool = True
    closes: bool = False


def answers_in(data: bytes, methods: list[bytes]) -> list[Reply]:
    """The final answers that stand in these bytes, read strictly; `methods` are those of the requests, in order.

    Raises AssertionError where what stands there is no answer. Only the last may be cut off.
    """
    replies: list[Reply] = []
    at = 0
    while at < len(data):
        method = methods[len(replies)] if len(replies) < len(methods) else b""
        reply, at = _read_reply(data, at, method)
        if reply.status >= 200:
            replies.append(reply)
        if not reply.whole:
            break
    return replies


def _read_reply(data: bytes, at: int, method: bytes) -> tuple[Reply, int]:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return Reply(999, whole=False), len(data)
    line, *lines = data[at:end].split(b"\r\n")
    status = _STATUS_LINE.fullmatch(line)
    fields = [_FIELD.fullmatch(one) for one in lines]
    assert status is not None and all(fields), data[at : end + 4]
    named: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field is not None:
            named.setdefault(field[1].lower(), []).append(field[2])
    reply = Reply(int(status[1]), closes=named.get(b"connection") == [b"close"])
    at = end + 4
    if method == b"HEAD" and reply.closes and named.get(b"content-length") == [b"%d" % (len(data) - at)]:
        return reply, len(data)  # a request line that is malformed behind its method is nobody's HEAD
    if method == b"HEAD" or reply.status < 200 or reply.status in (204, 304):
        return reply, at
    if b"content-length" not in named and b"transfer-encoding" not in named:
        assert reply.closes, data[:end]
        return reply, len(data)
    behind = _end_of_body(data, at, named)
    reply.whole = behind is not None
    return reply, len(data) if behind is None else behind
