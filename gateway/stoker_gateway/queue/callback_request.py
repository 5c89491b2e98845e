"""What a callback sends: the answer's headers and body, what we say about the call, and the signature.

**The signed text** is, in bytes, `TIMESTAMP.CALL_ID.STATUS.` followed by the body: the values of `X-Stoker-Timestamp`
(Unix seconds, at sending), `X-Call-Id` and `X-Function-Status` with a dot behind each. `X-Stoker-Signature` is
`sha256=` and the HMAC-SHA256 of that text in hexadecimal. A receiver compares it in constant time, and refuses
timestamps that are more than a few minutes old, so that what somebody recorded cannot be sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_sdk import __version__

Body = bytes | Path
"""An answer's body: in memory, or a file that stays as it is until the callback has ended."""

USER_AGENT: Final = f"stoker-queue-worker/{__version__}"
PIECE: Final = 65536

_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
_REPLACED = {
    b"content-length", b"host", b"expect", b"user-agent", b"x-call-id", b"x-duration-seconds", b"x-function-name",
    b"x-function-status", b"x-stoker-signature", b"x-stoker-timestamp",
}  # fmt: skip
# They describe a request. A function that answers with the headers it got must not send its callbacks on for ever.
_OF_REQUESTS = {b"x-callback-url", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
_DROPPED = _HOP_BY_HOP | _REPLACED | _OF_REQUESTS


@dataclass(frozen=True, slots=True)
class Callback:
    """One answer on its way to `url`, which `check_callback_url` has seen.

    `function` is the name as it was called, `status` and `seconds` are the call's, `fields` the answer's headers.
    """

    url: str
    call_id: str
    function: str
    status: int
    seconds: float
    fields: Sequence[tuple[bytes, bytes]] = ()
    body: Body = b""


def size_of(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def headers_of(callback: Callback) -> list[tuple[str, str]]:
    """The request's headers (contract section 5.4), all but the signature."""
    named = b",".join(value for name, value in callback.fields if name.lower() == b"connection").lower()
    dropped = _DROPPED | {token.strip() for token in named.split(b",")}
    passed = [(_text(name), _text(value)) for name, value in callback.fields if name.lower() not in dropped]
    return passed + [
        ("Content-Length", str(size_of(callback.body))),
        ("User-Agent", USER_AGENT),
        ("X-Call-Id", callback.call_id),
        ("X-Duration-Seconds", f"{callback.seconds:.6f}"),
        ("X-Function-Name", callback.function),
        ("X-Function-Status", str(callback.status)),
    ]


async def signature_headers(callback: Callback, secret: bytes, timestamp: int) -> list[tuple[str, str]]:
    """The signature at a time in Unix seconds. Large bodies are read in a thread."""
    if size_of(callback.body) <= PIECE:
        digest = sign(callback, secret, timestamp)
    else:
        digest = await asyncio.to_thread(sign, callback, secret, timestamp)
    return [("X-Stoker-Timestamp", str(timestamp)), ("X-Stoker-Signature", f"sha256={digest}")]


def sign(callback: Callback, secret: bytes, timestamp: int) -> str:
    """The HMAC-SHA256 of the signed text (see above), in hexadecimal."""
    begin = f"{timestamp}.{callback.call_id}.{callback.status}."
    digest = hmac.new(secret, begin.encode(), hashlib.sha256)
    for piece in _pieces(callback.body):
        digest.update(piece)
    return digest.hexdigest()


async def stream(body: Body) -> AsyncIterator[bytes]:
    """The body in pieces, so that a large one neither fills memory nor stops the loop."""
    for piece in _pieces(body):
        yield piece


def _pieces(body: Body) -> Iterator[bytes]:
    if isinstance(body, bytes):
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]
        return
    with body.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _text(value: bytes) -> str:
    """Headers are bytes; the client wants text that it can encode as UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
