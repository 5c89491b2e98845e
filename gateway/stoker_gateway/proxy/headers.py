"""Header rules of a call: what is added to a request on its way in and to an answer on its way out.

Contract section 4.1. Differences are listed in ARCHITECTURE.md: a caller's call id is echoed, the peer's address is
appended to `X-Forwarded-For`, and the original `Host` is kept.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoker_wire.message import Field
from stoker_wire.server import CHUNKED, Exchange

if TYPE_CHECKING:
    from stoker_gateway.proxy.proxy import Proxy

_ORDINARY = 1
_CALL_ID, _FORWARDED_FOR, _FORWARDED_HOST, _FORWARDED_PROTO, _REPLACED = range(2, 7)
_IN_REQUEST = {
    b"x-call-id": _CALL_ID,
    b"x-forwarded-for": _FORWARDED_FOR,
    b"x-forwarded-host": _FORWARDED_HOST,
    b"x-forwarded-proto": _FORWARDED_PROTO,
    b"x-start-time": _REPLACED,
}
_TYPE, _DATE, _DROPPED = range(2, 5)
_IN_ANSWER = {
    b"content-type": _TYPE,
    b"date": _DATE,
    b"x-call-id": _DROPPED,
    b"x-start-time": _DROPPED,
    b"x-duration-seconds": _DROPPED,
}
_MAX_SPELLINGS = 4096
_MAX_REMEMBERED = 64  # bytes; what a stranger sends is not kept at any length
_USABLE_CALL_ID = re.compile(rb"[!-~]{1,128}")


class CallIds:
    """Makes version 4 UUIDs (RFC 9562) from blocks of randomness: one system call for 256 of them."""

    def __init__(self) -> None:
        self._hex = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._hex):
            self._hex = os.urandom(16 * 256).hex().encode()
            at = 0
        self._at = at + 32
        h = self._hex[at : at + 32]
        return b"%b-%b-4%b-a%b-%b" % (h[:8], h[8:12], h[13:16], h[17:20], h[20:])


@dataclass(slots=True)
class Stamp:
    """What marks one call: its id, and the two header lines that go both ways with it."""

    call_id: bytes
    lines: bytes


NO_STAMP = Stamp(b"", b"")


def request_head(
    proxy: Proxy, exchange: Exchange, path: bytes, begun: float, *, id: bytes = b"", framing: bytes | None = None
) -> tuple[Stamp, bytes]:
    """The call's stamp, and the request's head as the replica gets it, framing included.

    `id` and `framing` replace the caller's id and the framing in which the body came.
    """
    call_id = b""
    forwarded = b""
    host, proto = exchange.host, b"https" if exchange.secure else b"http"
    lines = []
    for field in exchange.fields:
        name, value = field
        known = _IN_REQUEST.get(name) or _kind(_IN_REQUEST, name)
        if known == _ORDINARY:
            lines.append(b"%b: %b\r\n" % field)
        elif known == _CALL_ID:
            call_id = value if _USABLE_CALL_ID.fullmatch(value) else b""
        elif known == _FORWARDED_FOR:
            forwarded += value + b", "
        elif known == _FORWARDED_HOST:
            host = value
        elif known == _FORWARDED_PROTO:
            proto = value
    call_id = id or call_id or proxy.call_ids.next()
    if not exchange.peer:  # a worker, whose request is as a proxy made it: there is no hop to add
        forwarded = forwarded.removesuffix(b", ")
    stamp = Stamp(call_id, b"X-Call-Id: %b\r\nX-Start-Time: %d\r\n" % (call_id, proxy.wall_nanoseconds(begun)))
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%bX-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\n%b\r\n" % (
        exchange.method,
        path,
        exchange.host,
        b"".join(lines),
        stamp.lines,
        forwarded + exchange.peer,
        host,
        b"X-Forwarded-Proto: %b\r\n%b" % (proto, _framing(exchange) if framing is None else framing),
    )
    return stamp, head


def _framing(exchange: Exchange) -> bytes:
    if exchange.length == CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    if exchange.length:
        return b"Content-Length: %d\r\n" % exchange.length
    if exchange.upgrade:
        return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % exchange.upgrade
    return b""


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What of an answer's headers goes to the client: their lines, and what they say that matters here."""

    lines: bytes
    has_type: bool
    has_date: bool
    streams: bool


def pass_on(fields: list[Field]) -> PassedOn:
    """Sort an answer's end-to-end headers: ours replace those that mark the call."""
    lines = []
    has_type = has_date = streams = False
    for field in fields:
        name = field[0]
        known = _IN_ANSWER.get(name) or _kind(_IN_ANSWER, name)
        if known == _DROPPED:
            continue
        lines.append(b"%b: %b\r\n" % field)
        if known == _TYPE:
            has_type = True
            streams = field[1].startswith(b"text/event-stream")
        elif known == _DATE:
            has_date = True
    return PassedOn(b"".join(lines), has_type, has_date, streams)


def answer_block(proxy: Proxy, exchange: Exchange, passed: PassedOn, stamp: Stamp, seconds: float) -> bytes:
    """The answer's end-to-end headers ready for the wire."""
    content_type = b"" if passed.has_type else b"Content-Type: %b\r\n" % _type_of_request(exchange)
    date = b"" if passed.has_date else proxy.date_line
    return b"%b%b%b%bX-Duration-Seconds: %.6f\r\n" % (passed.lines, content_type, date, stamp.lines, seconds)


def _kind(known: dict[bytes, int], name: bytes) -> int:
    """What a header is, by its name in a spelling that was not met yet; remembered, since lowering costs more."""
    kind = known.get(name.lower(), _ORDINARY)
    if len(known) < _MAX_SPELLINGS and len(name) <= _MAX_REMEMBERED:
        known[name] = kind
    return kind


def error_block(proxy: Proxy, side: str, code: str, call_id: bytes, *, retry: int) -> bytes:
    """The headers of an answer of our own. `side` says whose fault it is: platform, function or client; `retry` is
    after how many seconds the client may come again, 0 for never.
    """
    lines = [
        b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n",
        b"X-Stoker-Error: %b; %b\r\n" % (side.encode(), code.encode()),
        proxy.date_line,
    ]
    if side == "platform":
        lines.append(b"X-OpenFaaS-Internal: proxy\r\n")
    if call_id:
        lines.append(b"X-Call-Id: %b\r\n" % call_id)
    if retry:
        lines.append(b"Retry-After: %d\r\n" % retry)
    return b"".join(lines)


def _type_of_request(exchange: Exchange) -> bytes:
    """A function that names no type gets the request's, else plain text (contract section 4.1)."""
    for name, value in exchange.fields:
        if len(name) == 12 and name.lower() == b"content-type":
            return value
    return b"text/plain"
