"""One request and its answer, and the rules of framing the answer.

Whoever handles an exchange becomes its `Owner`: the connection tells the owner what comes, the owner tells the
exchange what to answer. How answers share a connection is the business of `server`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from stoker_wire.message import STATUS_LINES, Field, has_no_body

if TYPE_CHECKING:
    from stoker_wire.server import ServerConnection

CHUNKED = -1
"""The length of a body that comes in chunks."""


class Owner(Protocol):
    """Who answers an exchange. All calls come from the event loop and must return at once."""

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""

    def body_end(self) -> None:
        """The request is complete."""

    def flush(self) -> None:
        """All that one read brought has been handed over: send what was gathered."""

    def client_gone(self) -> None:
        """The client closed, or broke its request off; nothing can be answered any more."""

    def hold(self) -> None:
        """The client reads too slowly: produce no more for now."""

    def release(self) -> None:
        """The client has caught up."""


class Idle:
    """An owner that ignores everything: for exchanges that were answered at once."""

    def body(self, data: bytes) -> None: ...
    def body_end(self) -> None: ...
    def flush(self) -> None: ...
    def client_gone(self) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...


IDLE: Owner = Idle()


class Exchange:
    """One request and its answer. `target` is the path and query exactly as received.

    `length` is the body's: 0, a number of bytes, or CHUNKED. `fields` are the end-to-end headers, in order; `Host` is
    apart. Whoever handles it sets `owner`, then calls `start`, `write` (any number), `finish`; or `abort`.
    """

    __slots__ = (
        "_bodyless",
        "_chunks",
        "_connection",
        "_early",
        "_out",
        "_until_close",
        "complete",
        "expects_continue",
        "fields",
        "finished",
        "host",
        "keep_alive",
        "length",
        "method",
        "minor",
        "owner",
        "received",
        "started",
        "status",
        "target",
        "upgrade",
    )

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._out: list[bytes] = []
        self._early: list[bytes] | None = None
        self._bodyless = False
        self._chunks = False
        self._until_close = False
        self.method = b""
        self.target = b""
        self.host = b""
        self.fields: list[Field] = []
        self.length = 0
        self.minor = 1
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade = b""
        self.owner: Owner = IDLE
        self.received = 0
        self.complete = False
        self.started = False
        self.finished = False
        self.status = 0

    def __repr__(self) -> str:
        state = "finished" if self.finished else "started" if self.started else "open"
        return f"<Exchange {self.method.decode()} {self.target[:60]!r} {state} {self.status or ''}>"

    @property
    def peer(self) -> bytes:
        """The client's address without the port; empty for a unix socket."""
        return self._connection.peer

    @property
    def secure(self) -> bool:
        return self._connection.secure

    def start(self, status: int, block: bytes, length: int | None) -> None:
        """Begin the answer. `block` holds the end-to-end headers ready for the wire, without any about framing.

        `length` is the body's size in bytes, or None when it is not known beforehand.
        """
        self.started = True
        self.status = status
        head = [STATUS_LINES[status], block]
        self._bodyless = has_no_body(status) or self.method == b"HEAD"
        if length is not None:
            if status != 204 and status >= 200:
                head.append(b"Content-Length: %d\r\n" % length)
        elif not self._bodyless:
            self._frame_unknown_length(head)
        if not self.keep_alive or (not self.complete and not self._connection.reads_on(self)):
            self.keep_alive = False
            head.append(b"Connection: close\r\n")
        elif self.minor == 0:
            head.append(b"Connection: keep-alive\r\n")
        head.append(b"\r\n")
        self._out.append(b"".join(head))

    def _frame_unknown_length(self, head: list[bytes]) -> None:
        if self.minor == 1:
            self._chunks = True
            head.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._until_close = True
            self.keep_alive = False

    def write(self, data: bytes) -> None:
        """Add to the answer's body; sent at the next `flush` or `finish`."""
        if self._bodyless or not data:
            return
        if self._chunks:
            self._out.append(b"%x\r\n" % len(data))
            self._out.append(data)
            self._out.append(b"\r\n")
        else:
            self._out.append(data)

    def flush(self) -> None:
        out = self._out
        if out:
            self._connection.send(out[0] if len(out) == 1 else b"".join(out))
            self._out = []

    def finish(self) -> None:
        """The answer is complete: send the rest, and let the next request on this connection begin."""
        if self._chunks and not self._bodyless:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self.finished = True
        self._connection.answered(self)

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        """The whole answer at once."""
        self.start(status, block, len(body))
        if body and not self._bodyless:
            self._out.append(body)
        self.finish()

    def abort(self) -> None:
        """Break the answer off so that the client sees it broken: the connection ends without the last chunk."""
        self.finished = True
        self._connection.abort(reset=self._until_close)

    def accept_body(self) -> None:
        """The body is wanted: a client that waits for `100 Continue` is told to go on."""
        if self.expects_continue and not self.started:
            self.expects_continue = False
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hold_body(self) -> None:
        """Stop reading the request's body until `release_body`, or until the answer is finished."""
        if not self.finished:
            self._connection.hold_reading()

    def release_body(self) -> None:
        if not self.finished:
            self._connection.release_reading()

    def switch(self, block: bytes) -> tuple[asyncio.Transport, bytes]:
        """Answer `101` to an upgrade, and give the bare transport and the bytes that came behind the request.

        The exchange is over then, and the connection is the caller's.
        """
        head = STATUS_LINES[101] + block + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % self.upgrade
        self._connection.send(head)
        self.started = self.finished = True
        self.status = 101
        return self._connection.hand_over()

    # For the connection only.

    def keep_early(self, data: bytes) -> None:
        """Body bytes that came before the exchange had its turn."""
        if self._early is None:
            self._early = []
        self._early.append(data)

    def take_early(self) -> list[bytes]:
        early, self._early = self._early or [], None
        return early
