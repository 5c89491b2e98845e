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
    has_no_body,
    header_kind,
    named_by,
)

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
        """The answer is complete. The connection has gone back to its pool, or is closed."""

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
        "_fields",
        "_got",
        "_head",
        "_head_only",
        "_hop",
        "_length",
        "_parser",
        "_pool",
        "_receiver",
        "_reusable",
        "_status",
        "_until_close",
        "address",
        "idle_since",
        "reused",
        "transport",
    )

    def __init__(self, pool: Pool, address: str) -> None:
        self._pool = pool
        self.address = address
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._head_only = False
        self._reusable = True
        self.reused = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._fields: list[Field] = []
        self._hop: dict[int, bytes] = {}
        self._length: int | None = None
        self._status = 0
        self._got = False
        self._head: AnswerHead | None = None
        self._until_close = False

    def __repr__(self) -> str:
        state = "busy" if self._receiver else "idle"
        return f"<ClientConnection {self.address} {state}>"

    def send(self, receiver: Receiver, head: bytes, *, head_only: bool = False) -> None:
        """Send a request's head (and as much of its body as is joined to it). `head_only`: it is a HEAD request."""
        self._receiver = receiver
        self._head_only = head_only
        self.transport.write(head)

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
            receiver.broken(str(exc) if exc else "the connection was closed", self._got)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.hold_request()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.release_request()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self.transport.abort()  # nobody asked: the peer's framing is off, trust it no further
            return
        if not self._got and not self._head_only and (known := self._pool.known_heads.get(data[: data.find(_END)])):
            # The very bytes of a head that was parsed before, and its whole body: there is nothing to parse.
            body = data[data.find(_END) + 4 :]
            if len(body) == known.length:
                receiver.answer(known)
                if body:
                    receiver.data(body)
                self._complete()
                return
        self._got = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgraded:
            self._switch(data[upgraded.args[0] :])
        except httptools.HttpParserError as error:
            self._break(error)
        if self._receiver is receiver:
            receiver.flush_answer()
        elif self._head is not None:
            self._pool.learn(self._head, data)

    # httptools callbacks

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
        if status < 200:
            if status != 101:
                self._reset()
                self._got = True
            return
        self._status = status
        receiver = self._receiver
        if receiver is None:
            return
        self._until_close = (
            self._length is None
            and not self._head_only
            and TRANSFER_ENCODING not in self._hop
            and not has_no_body(status)
        )
        self._reusable = self._parser.should_keep_alive() or (self._head_only and self._says_keep_alive())
        fields = self._fields
        connection = self._hop.get(CONNECTION)
        if connection is not None:
            named = named_by(connection) - _USUAL_CONNECTION_TOKENS
            if named:
                fields = [field for field in fields if field[0].lower() not in named]
        self._head = AnswerHead(status, fields, self._length)
        receiver.answer(self._head)
        if self._head_only:
            self._complete()

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.data(data)

    def on_message_complete(self) -> None:
        if self._status and not self._head_only:
            self._complete()

    def _complete(self) -> None:
        receiver, self._receiver = self._receiver, None
        if self._got:
            self._end_parsed()
        if self._reusable and not self.transport.is_closing():
            self._pool.put(self)
        else:
            self.transport.close()
        if receiver is not None:
            receiver.end()

    def _end_parsed(self) -> None:
        head = self._head if self._reusable and not self._head_only else None
        if self._head_only:
            # llhttp waits for the body that the head announced; a fresh parser does not.
            self._parser = httptools.HttpResponseParser(self)
            self._head_only = False
        self._reset()
        self._head = head

    def _says_keep_alive(self) -> bool:
        return b"close" not in self._hop.get(CONNECTION, b"").lower() and self._parser.get_http_version() == "1.1"

    def _switch(self, behind: bytes) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.switched(self._fields, self.transport, behind)

    def _break(self, error: Exception) -> None:
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.broken(f"the answer is malformed: {error}", True)
        if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
            raise error.__context__  # a bug of ours, not of the peer's


_END = b"\r\n\r\n"
_MAX_KNOWN_HEADS = 1024
_MAX_KNOWN_SIZE = 1024
_USUAL_CONNECTION_TOKENS = {b"close", b"keep-alive", b"upgrade", b""}

Dialled = Callable[["ClientConnection | None", str], None]
"""Called once with a connection, or with None and the reason why there is none."""


class Pool:
    """Idle connections by address, last used first out; dials when asked."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._idle: dict[str, list[ClientConnection]] = {}
        self.known_heads: dict[bytes, AnswerHead] = {}
        self._loop = asyncio.get_running_loop()
        self._dials: set[asyncio.Task[None]] = set()
        self._now = self._loop.time()
        self._timer = self._loop.call_later(_TICK, self._tick)

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
            async with asyncio.timeout(self._limits.dial):
                connection = await connect(self, address)
        except TimeoutError:
            dialled(None, f"no connection within {self._limits.dial:g} s")
        except OSError as error:
            dialled(None, error.strerror or str(error))
        else:
            dialled(connection, "")

    def _tick(self) -> None:
        self._now = self._loop.time()
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if self._now - c.idle_since > self._limits.pooled_idle]:
                idle.remove(connection)
                connection.transport.close()
            if not idle:
                del self._idle[address]
        self._timer = self._loop.call_later(_TICK, self._tick)

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
