"""What both sides must know of HTTP/1.1 messages: header kinds, status lines, and how a refusal is worded."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

ORDINARY: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
UPGRADE: Final = 5
EXPECT: Final = 6
DROPPED: Final = 7

_KIND_BY_NAME: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    # Hop-by-hop (RFC 9110, section 7.6.1): they concern one connection and never pass.
    b"keep-alive": DROPPED,
    b"proxy-connection": DROPPED,
    b"proxy-authenticate": DROPPED,
    b"proxy-authorization": DROPPED,
    b"te": DROPPED,
    b"trailer": DROPPED,
}

_MAX_SPELLINGS: Final = 4096
_MAX_REMEMBERED: Final = 64  # bytes; what a stranger sends is not kept at any length
_kinds: dict[bytes, int] = {}
_USUAL_CONNECTION_TOKENS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b""))
_named: dict[bytes, frozenset[bytes]] = {}

Field = tuple[bytes, bytes]


def header_kind(name: bytes) -> int:
    """The kind of a header by its name in any spelling; remembered by spelling, since lowering costs more."""
    kind = _kinds.get(name)
    if kind is None:
        kind = _KIND_BY_NAME.get(name.lower(), ORDINARY)
        if len(_kinds) < _MAX_SPELLINGS and len(name) <= _MAX_REMEMBERED:
            _kinds[name] = kind
    return kind


def reason_phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Status"


STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status)) for status in range(100, 1000)}


def has_no_body(status: int) -> bool:
    """Whether an answer with this status never carries a body (RFC 9112, section 6.3)."""
    return status < 200 or status == 204 or status == 304


def field_block(fields: list[Field]) -> bytes:
    """Header fields as they stand on the wire, each ended by CRLF, without the empty line."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def named_by(connection: bytes) -> frozenset[bytes]:
    """The header names, lower case, that a `Connection` header makes hop-by-hop."""
    named = _named.get(connection)
    if named is None:
        named = frozenset(token.strip().lower() for token in connection.split(b","))
        if len(_named) < _MAX_SPELLINGS and len(connection) <= _MAX_REMEMBERED:
            _named[connection] = named
    return named


def end_to_end(fields: list[Field], connection: bytes) -> list[Field]:
    """The headers without those that a `Connection` header makes hop-by-hop."""
    named = named_by(connection)
    if named <= _USUAL_CONNECTION_TOKENS:
        return fields
    return [field for field in fields if field[0].lower() not in named]


class Refusal(Exception):
    """A message that is not accepted. `status` and `reason` are sent; then the connection is closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
