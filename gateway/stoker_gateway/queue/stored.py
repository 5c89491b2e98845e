"""A call as it is stored: one JSON line that says what it is, then the HTTP request byte for byte.

The bytes are what a worker sends to a proxy, so method, path, query, headers and body are those of a synchronous
call. Whoever can publish to the broker can write anything, so what is read is checked: one request, for this function.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

VERSION: Final = 1
VERSION_WITH_BODY: Final = 2
"""Of a call whose body lies in the object store: a worker that knows only the first version must not run it without."""
MAX_INLINE: Final = 16 * 1024 * 1024
"""Bytes of a body that travels in its message."""
MAX_BODY: Final = 1024**3
"""Bytes of a body at all; what is larger than the former lies in the object store."""
_MAX_LINE: Final = 64 * 1024
_MAX_HEAD: Final = 128 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_REQUEST_LINE = re.compile(rb"([A-Z-]{1,32}) /function/([^/? ]+)[^ \r\n]* HTTP/1\.1\r\n")


class BadCall(ValueError):
    """The message is no call that this release can run; the text says why."""


class BodyRef(msgspec.Struct, frozen=True):
    """A body in the object store (`bodies.py`): its object's name, bytes, chunks, and SHA-256 in hexadecimal."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    size: Annotated[int, msgspec.Meta(gt=0)]
    chunks: Annotated[int, msgspec.Meta(gt=0)]
    digest: str


class StoredCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """`key` is `NAME.NAMESPACE`, `at` the time of acceptance (Unix, ns), `callback` the `X-Callback-Url`.

    `keep` is for how many seconds its answer is to be kept, 0 if the request does not say.
    `body` is where the body is when it is not in the message, whose version is `VERSION_WITH_BODY` then.
    """

    v: int
    id: str
    key: str
    at: int
    callback: str = ""
    replay_of: str = ""
    keep: float = 0.0
    body: BodyRef | None = None


class _Version(msgspec.Struct, frozen=True):
    v: int


def encode(call: StoredCall, head: bytes, body: bytes = b"") -> bytes:
    """The message. `head` is the request's, with its empty line; it names the body's length."""
    return b"%b\n%b%b" % (msgspec.json.encode(call), head, body)


def decode(payload: bytes) -> tuple[StoredCall, bytes]:
    """The call and its request. Raises `BadCall`."""
    end = payload.find(b"\n", 0, _MAX_LINE)
    if end < 0:
        raise BadCall("it does not begin with a line of JSON")
    line = payload[:end]
    try:
        version = msgspec.json.decode(line, type=_Version).v
        if version not in (VERSION, VERSION_WITH_BODY):
            raise BadCall(f"it has version {version}, and this release reads {VERSION} and {VERSION_WITH_BODY}")
        call = msgspec.json.decode(line, type=StoredCall)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadCall(f"its first line is not that of a call: {error}") from error
    if (call.body is None) != (version == VERSION):
        raise BadCall(f"it has version {version}, which does not go with where its body is")
    request = payload[end + 1 :]
    _check_request(call, request)
    return call, request


def method_of(request: bytes) -> bytes:
    return request[: request.find(b" ")]


def _check_request(call: StoredCall, request: bytes) -> None:
    end = request.find(b"\r\n\r\n", 0, _MAX_HEAD)
    line = _REQUEST_LINE.match(request)
    if end < 0 or line is None:
        raise BadCall("there is no HTTP request behind its first line")
    if line[2] != call.key.encode():
        raise BadCall("its request is for another function than its first line says")
    head, body = request[: end + 2], len(request) - end - 4
    lengths = _LENGTH.findall(head)
    if call.body is not None:
        body = call.body.size if body == 0 else -1
    if _CODING.search(head) or len(lengths) > 1 or int(lengths[0] if lengths else 0) != body:
        raise BadCall("its request's body has not the length that its head says")
