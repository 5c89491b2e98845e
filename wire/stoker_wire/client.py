"""The client side: one pool of connections per address, and a connection that sends one request at a time.

Addresses are `unix:/path` or `tcp:host:port`. An idle connection that its peer closes leaves the pool at once, so a
stale one is met only when the close and the request cross on the way; `Receiver.broken(answered=False)` tells of it,
and whoever sent decides whether to repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from stoker_wire.limits import Limits
from stoker_wire.message import (
    CONNECTION,
    CONTENT_LENGTH,
    ORDINARY,
    TRANSFER_ENCODING,
    UPGRADE,
    Field,
    Refusal,
    end_to_end,
    has_no_body,
    header_kind,
)
from stoker_wire.outbox import Outbox

_TICK = 1.0


class AnswerHead:
    """The head of an answer: status, end-to-end headers, and the body's length when it was announced.

    Heads that are the same to the byte share one object, so a receiver may keep in `memo` what it derives from one.
    """

    __slots__ = ("fields", "length", "memo", "status")

    def __init__(self, status: int, fields: list[Field], length: int | None) -> None:
        self.status = status
        self.fields = fields
        self.length = length
        self.memo: Any = None


class Receiver(Protocol):
    """Who sent a request. All calls come from the event loop and must return at once."""

    def answer(self, head: AnswerHead) -> None:
        """The answer's head has come."""

    def data(self, data: bytes) -> None:
        """A piece of the answer's body."""

    def end(self) -> None:
        """The answer is complete, maybe before the request is. The connection is back in its pool, or closed."""

    def flush_answer(self) -> None:
        """All that one read brought has been handed over: pass on what was gathered."""

    def broken(self, reason: str, answered: bool) -> None:
        """The connection ended before the answer did. `answered`: at least one byte of it had come."""

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        """The peer answered `101`: the bare transport, and what came behind the head."""

    def hold_request(self) -> None:
        """The peer reads too slowly: send no more for now."""

    def release_request(self) -> None:
        """The peer has caught up."""


class ClientConnection(asyncio.Protocol):
    """One connection to a peer; belongs to its pool while idle, to its receiver while busy."""

    __slots__ = (
        "_ended",
        "_fed",
        "_fields",
        "_full",
        "_got",
        "_head",
        "_head_only",
        "_hop",
        "_length",
        "_parser",
        "_pool",
        "_receiver",
        "_reusable",
        "_sending",
        "_status",
        "_until_close",
        "_upgrades",
        "address",
        "idle_since",
        "reused",
        "transport",
        "unread",
    )

    def __init__(self, pool: Pool, address: str) -> None:
        self._pool = pool
        self.address = address
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._head_only = False
        self._upgrades = False
        self._sending = False  # the request is not complete
        self._full = False  # the peer has not taken what was written
        self._reusable = True
        self.reused = False
        self.unread = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._fields: list[Field] = []
        self._hop: dict[int, bytes] = {}
        self._length: int | None = None
        self._status = 0
        self._got = False
        self._fed = 0
        self._ended = False
        self._head: AnswerHead | None = None
        self._until_close = False

    def __repr__(self) -> str:
        state = "busy" if self._receiver else "idle"
        return f"<ClientConnection {self.address} {state}>"

    def send(
        self,
        receiver: Receiver,
        head: bytes,
        *,
        head_only: bool = False,
        upgrades: bool = False,
        more: bool = False,
    ) -> None:
        """Send a request's head, and as much of its body as is joined to it.

        `head_only`: it is a HEAD request. `upgrades`: it asks for an upgrade. `more`: the rest of the body follows by
        `send_body`, up to `end_body`; an answer that is complete before that ends the connection.
        """
        self._receiver = receiver
        self._head_only = head_only
        self._upgrades = upgrades
        self._sending = more
        self._pool.outbox.put(self.transport, head)

    def send_body(self, data: bytes) -> None:
        self._pool.outbox.put(self.transport, data)

    def end_body(self) -> None:
        self._sending = False

    def abandon(self) -> None:
        """Nobody waits for the answer any more: the connection is closed, which is how the peer learns of it."""
        self._receiver = None
        self.transport.abort()

    def hold(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if self._until_close and exc is None:
            receiver.end()
        else:
            # On a unix socket the kernel says so when the peer left with bytes of ours unread (unix(7)).
            lost = isinstance(exc, ConnectionResetError | BrokenPipeError)
            self.unread = lost and self.address.startswith("unix:")
            receiver.broken(str(exc) if exc else "the connection was closed", self._got)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True
        if self._receiver is not None:
            self._receiver.hold_request()

    def resume_writing(self) -> None:
        self._full = False
        if self._receiver is not None:
            self._receiver.release_request()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self.transport.abort()  # nobody asked: the peer's framing is off, trust it no further
            return
        first = not self._got
        if first and not self._head_only and (known := self._pool.known_heads.get(data[: data.find(_END)])):
            # The very bytes of a head that was parsed before, and its whole body: there is nothing to parse.
            body = data[data.find(_END) + 4 :]
            if len(body) == known.length:
                receiver.answer(known)
                if body:
                    receiver.data(body)
                self._complete()
                return
        self._got = True
        if not self._status:
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgraded:
            self._switch(data[upgraded.args[0] :])
        except httptools.HttpParserError as error:
            self._break(error)
        if self._ended:
            if first and self._head is not None and self._reusable and not self._head_only:
                self._pool.learn(self._head, data)
            self._complete()
        elif self._receiver is receiver:
            if not self._status and self._fed > self._pool.limits.head:
                self._break(_head_too_large(self._pool.limits.head))
            else:
                receiver.flush_answer()

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._ended:
            self._reusable = False  # bytes behind the answer: the peer's framing is off

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer: dropped
        kind = header_kind(name)
        if kind == ORDINARY:
            self._fields.append((name, value))
        elif kind == CONTENT_LENGTH:
            self._length = int(value)
        elif kind in (CONNECTION, TRANSFER_ENCODING, UPGRADE):
            earlier = self._hop.get(kind)
            self._hop[kind] = value if earlier is None else earlier + b"," + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        receiver = self._receiver
        if self._ended or receiver is None:
            return
        if status < 200:
            self._take_interim(status)
            return
        if self._fed > self._pool.limits.head and _size(self._fields) > self._pool.limits.head:
            raise _head_too_large(self._pool.limits.head)
        self._status = status
        self._head = AnswerHead(status, self._fields, self._length)
        if self._hop:
            self._read_hop_headers(self._head)
        self._until_close = (
            self._length is None
            and not self._head_only
            and TRANSFER_ENCODING not in self._hop
            and not has_no_body(status)
        )
        self._reusable = self._parser.should_keep_alive() or (self._head_only and self._says_keep_alive())
        receiver.answer(self._head)
        if self._head_only:
            self._ended = True

    def _take_interim(self, status: int) -> None:
        """1xx: `100 Continue` and its like are dropped, `101` ends HTTP on this connection."""
        if status == 101:
            if not self._upgrades:
                raise Refusal(502, "it switches protocols without being asked")
            return
        fed = self._fed
        self._reset()
        self._got = True
        self._fed = fed

    def _read_hop_headers(self, head: AnswerHead) -> None:
        coding = self._hop.get(TRANSFER_ENCODING)
        if coding is not None and coding.strip().lower() != b"chunked":
            raise Refusal(502, "its transfer coding is not chunked")
        connection = self._hop.get(CONNECTION)
        if connection is not None:
            head.fields = end_to_end(head.fields, connection)

    def on_body(self, data: bytes) -> None:
        if self._ended:
            self._reusable = False  # a body where none may be
        elif self._receiver is not None:
            self._receiver.data(data)

    def on_message_complete(self) -> None:
        if self._status:
            self._ended = True

    def _complete(self) -> None:
        """All that came with the answer's end is parsed, so it is known whether anything came behind it."""
        receiver, self._receiver = self._receiver, None
        reusable = self._reusable and not self._sending and not self._full
        if self._got:
            self._end_parsed()
        if reusable and not self.transport.is_closing():
            self._pool.put(self)
        else:
            self.transport.abort()
        if receiver is not None:
            receiver.end()

    def _end_parsed(self) -> None:
        if self._head_only:
            # llhttp waits for the body that the head announced; a fresh parser does not.
            self._parser = httptools.HttpResponseParser(self)
            self._head_only = False
        self._reset()

    def _says_keep_alive(self) -> bool:
        return b"close" not in self._hop.get(CONNECTION, b"").lower() and self._parser.get_http_version() == "1.1"

    def _switch(self, behind: bytes) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            fields = end_to_end(self._fields, self._hop.get(CONNECTION, b""))
            receiver.switched(fields, self.transport, behind)

    def _break(self, error: BaseException) -> None:
        if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
            error = error.__context__
        self._reusable = False
        if self._ended:
            return  # what is malformed came behind the answer
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.broken(f"the answer is malformed: {error}", True)
        if not isinstance(error, httptools.HttpParserError | Refusal):
            raise error  # a bug of ours, not of the peer's


_END = b"\r\n\r\n"
_MAX_KNOWN_HEADS = 1024
_MAX_KNOWN_SIZE = 1024


def _size(fields: list[Field]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in fields)


def _head_too_large(limit: int) -> Refusal:
    return Refusal(502, f"its head is larger than {limit} bytes")


Dialled = Callable[["ClientConnection | None", str], None]
"""Called once with a connection, or with None and the reason why there is none."""


class Pool:
    """Idle connections by address, last used first out; dials when asked."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self.limits = limits
        self._idle: dict[str, list[ClientConnection]] = {}
        self.known_heads: dict[bytes, AnswerHead] = {}
        self.outbox = Outbox()
        self._loop = asyncio.get_running_loop()
        self._dials: set[asyncio.Task[None]] = set()
        self._now = self._loop.time()
        self._tick_seconds = min(_TICK, limits.pooled_idle / 2)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    def __repr__(self) -> str:
        return f"<Pool idle={sum(map(len, self._idle.values()))} dials={len(self._dials)}>"

    def take(self, address: str) -> ClientConnection | None:
        """An idle connection, or None."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True
                return connection
        return None

    def put(self, connection: ClientConnection) -> None:
        connection.idle_since = self._now
        idle = self._idle.get(connection.address)
        if idle is None:
            self._idle[connection.address] = [connection]
        else:
            idle.append(connection)

    def learn(self, head: AnswerHead, data: bytes) -> None:
        """Remember a head that came with its whole body in one read; replicas send the same few over and over."""
        end = data.find(_END)
        if head.length is not None and 0 < end <= _MAX_KNOWN_SIZE and len(data) == end + 4 + head.length:
            if len(self.known_heads) >= _MAX_KNOWN_HEADS:
                self.known_heads.clear()
            self.known_heads[data[:end]] = head

    def forget(self, connection: ClientConnection) -> None:
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def close_address(self, address: str) -> None:
        """The peer is leaving: close what is idle there. Busy connections end by themselves."""
        for connection in self._idle.pop(address, []):
            connection.transport.close()

    def dial(self, address: str, dialled: Dialled) -> None:
        """Connect and call `dialled`. This is the one place that makes a task; a warm call never comes here."""
        task = self._loop.create_task(self._dial(address, dialled), name=f"dial {address}")
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, address: str, dialled: Dialled) -> None:
        try:
            async with asyncio.timeout(self.limits.dial):
                connection = await connect(self, address)
        except TimeoutError:
            dialled(None, f"no connection within {self.limits.dial:g} s")
        except (OSError, ValueError) as error:
            dialled(None, getattr(error, "strerror", None) or str(error))
        else:
            if connection.transport.is_closing():
                dialled(None, "the connection was closed at once")
            else:
                dialled(connection, "")

    def _tick(self) -> None:
        self._now = self._loop.time()
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if self._now - c.idle_since > self.limits.pooled_idle]:
                idle.remove(connection)
                connection.transport.close()
            if not idle:
                del self._idle[address]
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    def close(self) -> None:
        self._timer.cancel()
        for task in self._dials:
            task.cancel()
        for address in list(self._idle):
            self.close_address(address)


async def connect(pool: Pool, address: str) -> ClientConnection:
    """A new connection to `unix:/path` or `tcp:host:port`. Raises OSError."""
    loop = asyncio.get_running_loop()
    kind, _, rest = address.partition(":")
    if kind == "unix":
        _, connection = await loop.create_unix_connection(lambda: ClientConnection(pool, address), rest)
    else:
        host, _, port = rest.rpartition(":")
        _, connection = await loop.create_connection(
            lambda: ClientConnection(pool, address), host.strip("[]"), int(port)
        )
    return connection
