"""The server side of a connection: bytes in, exchanges out; answers in order, whatever their owners do.

One `ServerConnection` per accepted socket, one `Exchange` per request. llhttp in its strict mode is the first judge of
every byte; what it lets pass and two parsers could still read differently is refused here. Pipelined requests wait
parsed until the one before them is answered, and reading stops meanwhile, so they cost at most one read's memory.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from stoker_wire.limits import Limits
from stoker_wire.message import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    ORDINARY,
    STATUS_LINES,
    TRANSFER_ENCODING,
    UPGRADE,
    Field,
    Refusal,
    field_block,
    has_no_body,
    header_kind,
    named_by,
)

CHUNKED = -1
"""The length of a body that comes in chunks."""

_TICK = 0.5
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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
        "body_limit",
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
        self.body_limit = 0
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
            self._connection.transport.write(out[0] if len(out) == 1 else b"".join(out))
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
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hold_body(self) -> None:
        """Stop reading the request's body until `release_body`."""
        self._connection.hold_reading()

    def release_body(self) -> None:
        self._connection.release_reading()

    def switch(self, block: bytes) -> tuple[asyncio.Transport, bytes]:
        """Answer `101` to an upgrade, and give the bare transport and the bytes that came behind the request.

        The exchange is over then, and the connection is the caller's.
        """
        head = STATUS_LINES[101] + block + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % self.upgrade
        self._connection.transport.write(head)
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


Handler = Callable[[Exchange], None]
"""Called when a request's head is complete and it is its turn. Sets `exchange.owner`, or answers at once."""


class Server:
    """What the connections of one process share: handler, limits, a coarse clock, and their own set."""

    def __init__(self, handler: Handler, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self.handler = handler
        self.limits = limits
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self._timer = self._loop.call_later(_TICK, self._tick)

    def __call__(self) -> ServerConnection:
        """The protocol factory for `loop.create_server` and its kin."""
        return ServerConnection(self)

    def _tick(self) -> None:
        self.now = self._loop.time()
        for connection in list(self.connections):
            connection.check_time(self.now)
        self._timer = self._loop.call_later(_TICK, self._tick)

    def drain(self) -> None:
        """From now on each connection closes after the answer that it is giving; idle ones close at once."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    @property
    def busy(self) -> int:
        """How many connections have an exchange that is not answered yet."""
        return sum(connection.busy for connection in self.connections)

    def close(self) -> None:
        self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()


class ServerConnection(asyncio.Protocol):
    """One accepted connection."""

    __slots__ = (
        "_behind",
        "_current",
        "_fed",
        "_fields",
        "_head_ended",
        "_held",
        "_hop",
        "_host",
        "_in_body",
        "_length",
        "_lingers_since",
        "_parser",
        "_parsing",
        "_queue",
        "_refusal",
        "_server",
        "_since",
        "_size",
        "_switches",
        "_target",
        "_unwritten",
        "_waits",
        "peer",
        "secure",
        "transport",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._current: Exchange | None = None
        self._parsing: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: Refusal | None = None
        self._since = server.now
        self._lingers_since = 0.0
        self._held = False
        self._fed = 0
        self._behind = b""
        self._in_body = False
        self._head_ended = False
        self._waits = True
        self._switches = False
        self._unwritten = 0
        self.secure = False
        self.peer = b""
        self._reset_head()

    def _reset_head(self) -> None:
        self._target = b""
        self._host: bytes | None = None
        self._fields: list[Field] = []
        self._length = 0
        self._hop: dict[int, bytes] = {}
        self._size = 0

    def __repr__(self) -> str:
        return f"<ServerConnection {self.peer.decode() or 'unix'} current={self._current!r} queued={len(self._queue)}>"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0].encode() if isinstance(peer, tuple) else b""
        self.secure = transport.get_extra_info("sslcontext") is not None
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None and not current.finished:
            current.finished = True
            current.owner.client_gone()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._current is not None:
            self._current.owner.hold()

    def resume_writing(self) -> None:
        if self._current is not None:
            self._current.owner.release()

    def data_received(self, data: bytes) -> None:
        if self._lingers_since or self._refusal is not None:
            return
        if self._switches:
            self._behind += data
            return
        if self._waits:
            self._waits = False
            self._since = self._server.now
        self._head_ended = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgraded:
            self._end_upgraded_head(data[upgraded.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            self._refuse(_refusal_of(error))
        else:
            if not self._waits and self._parsing is None and not self._head_ended:
                self._count_unfinished_head(len(data))
        current = self._current
        if current is not None:
            current.owner.flush()

    # httptools callbacks

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._server.limits.request_line:
            raise Refusal(414, f"the request line is longer than {self._server.limits.request_line} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > self._server.limits.head:
            raise self._head_too_large()
        if self._in_body:
            return  # a trailer: dropped, but counted
        kind = header_kind(name)
        if kind == ORDINARY:
            self._fields.append((name, value))
        elif kind == HOST:
            if self._host is not None:
                raise Refusal(400, "the request has two Host headers")
            self._host = value
        elif kind == CONTENT_LENGTH:
            self._length = int(value)
        elif kind == TRANSFER_ENCODING:
            self._check_coding(value.lower())
            self._length = CHUNKED
        else:
            earlier = self._hop.get(kind)
            self._hop[kind] = value if earlier is None else earlier + b"," + value

    def on_headers_complete(self) -> None:
        exchange = Exchange(self)
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive() and not self._server.draining
        exchange.minor = self._check_version()
        exchange.target = self._target
        if self._host is None:
            if exchange.minor == 1:
                raise Refusal(400, "the request has no Host header")
        else:
            exchange.host = self._host
        exchange.fields = self._fields
        exchange.length = self._length
        if self._target[0] != 47 or exchange.method == b"CONNECT":  # "/"
            exchange.target = _origin_form(exchange.method, self._target)
        elif b"#" in self._target:
            raise Refusal(400, "the request's target has a fragment")
        if self._hop:
            self._read_hop_headers(exchange)
        self._reset_head()
        self._in_body = self._head_ended = True
        self._fed = 0
        exchange.complete = exchange.length == 0
        self._parsing = exchange
        if self._current is None:
            self._begin(exchange)
        else:
            self._queue.append(exchange)
            self.transport.pause_reading()

    def on_body(self, data: bytes) -> None:
        exchange = self._parsing
        if exchange is None:
            return
        exchange.received += len(data)
        if exchange is not self._current:
            exchange.keep_early(data)
        elif not exchange.finished:
            exchange.owner.body(data)

    def on_message_complete(self) -> None:
        if self._switches:
            return  # llhttp says so of every upgrade; `_end_upgraded_head` knows better
        exchange, self._parsing = self._parsing, None
        self._in_body = False
        self._size = 0
        self._waits = True
        if exchange is None:
            return
        waited = not exchange.complete
        exchange.complete = True
        if exchange is self._current and waited and not exchange.finished:
            exchange.owner.body_end()

    # Reading a head

    def _check_coding(self, coding: bytes) -> None:
        if coding == b"chunked":
            return
        if coding.rpartition(b",")[2].strip() == b"chunked":
            raise Refusal(501, "the only transfer coding that is understood is chunked")
        raise Refusal(400, "the last transfer coding must be chunked, or the body has no end")

    def _check_version(self) -> int:
        version = self._parser.get_http_version()
        if version == "1.1":
            return 1
        if version != "1.0":
            raise Refusal(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        if self._length == CHUNKED:
            raise Refusal(400, "an HTTP/1.0 request cannot have a transfer coding")
        return 0

    def _read_hop_headers(self, exchange: Exchange) -> None:
        connection = self._hop.get(CONNECTION)
        if connection is not None:
            named = named_by(connection)
            if not named <= _USUAL_CONNECTION_TOKENS:
                exchange.fields = [field for field in exchange.fields if field[0].lower() not in named]
            if b"upgrade" in named and UPGRADE in self._hop:
                self._switches = True
                self._read_upgrade(exchange)
        expect = self._hop.get(EXPECT)
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise Refusal(417, "the only expectation that is understood is 100-continue")
            exchange.expects_continue = exchange.minor == 1 and self._length != 0

    def _read_upgrade(self, exchange: Exchange) -> None:
        if self._hop[UPGRADE].lower() == b"websocket" and exchange.minor == 1:
            if exchange.length:
                raise Refusal(400, "a WebSocket request cannot have a body")
            exchange.upgrade = b"websocket"
            exchange.keep_alive = False

    def _end_upgraded_head(self, behind: bytes) -> None:
        """llhttp stops behind a head that asks for an upgrade. Only WebSocket is switched to; others go on as HTTP.

        Clients offer `h2c` on ordinary requests, so their body is then read by a parser with a head of our making.
        """
        exchange = self._parsing
        if exchange is None or exchange.upgrade:
            self._behind = behind
            return
        self._switches = False
        self._parser = httptools.HttpRequestParser(self)
        if exchange.length:
            self._parser = httptools.HttpRequestParser(_BodyOnly(self))
            chunked = exchange.length == CHUNKED
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % exchange.length
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
        else:
            self.on_message_complete()
        if behind:
            self.data_received(behind)

    def _count_unfinished_head(self, size: int) -> None:
        self._fed += size
        if self._fed > self._server.limits.head + self._server.limits.request_line:
            self._refuse(self._head_too_large())

    def _head_too_large(self) -> Refusal:
        return Refusal(431, f"the request's head is larger than {self._server.limits.head} bytes")

    # The order of exchanges

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self._server.handler(exchange)

    def answered(self, exchange: Exchange) -> None:
        """The current exchange's answer is written; go on to what follows it."""
        if exchange is not self._current:
            return
        self._since = self._server.now
        if not exchange.keep_alive:
            self._close_behind_answer(exchange)
        elif exchange.complete:
            self._current = None
            if self._queue or self._refusal is not None:
                self._next()
        else:
            # The rest of a body that nobody wanted is read and thrown away; `reads_on` bounded it.
            exchange.owner = _Rest(self, exchange)
            self.release_reading()

    def _next(self) -> None:
        while self._queue and self._current is None:
            exchange = self._queue.popleft()
            self._begin(exchange)
            if not exchange.finished:
                self._hand_early_body(exchange)
        if self._current is None:
            if self._refusal is not None:
                self._answer_refusal(self._refusal)
            elif not self._held:
                self.transport.resume_reading()

    def _hand_early_body(self, exchange: Exchange) -> None:
        early = exchange.take_early()
        for data in early:
            exchange.owner.body(data)
        if exchange.length and exchange.complete and not exchange.finished:
            exchange.owner.body_end()
        if not exchange.finished:
            exchange.owner.flush()

    def rest_read(self, exchange: Exchange) -> None:
        if exchange is self._current:
            self._current = None
            self._next()

    def reads_on(self, exchange: Exchange) -> bool:
        """Whether the rest of a body is small enough to be read for the sake of keeping the connection."""
        return 0 < exchange.length - exchange.received <= 65536 and not exchange.expects_continue

    def _close_behind_answer(self, exchange: Exchange) -> None:
        self._current = None
        self._queue.clear()
        if exchange.complete:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Read on for a while and throw away, then close; closing at once would make the kernel send a reset."""
        self._lingers_since = self._server.now or 1e-9
        if not self.secure and self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.release_reading()

    # Refusals

    def _refuse(self, error: BaseException | None) -> None:
        if not isinstance(error, Refusal):
            raise error or RuntimeError("the parser's callback failed without an error")
        self._refusal = error
        current = self._current
        if self._parsing in self._queue:
            self._queue.remove(self._parsing)
        if current is None:
            self._answer_refusal(error)
        elif current is self._parsing and not current.finished:
            owner, current.owner = current.owner, IDLE
            started = current.started
            current.finished = True
            owner.client_gone()
            self._current = None
            if started:
                self.abort()
            else:
                self._answer_refusal(error)

    def _answer_refusal(self, refusal: Refusal) -> None:
        exchange = Exchange(self)
        exchange.keep_alive = False
        exchange.complete = True
        body = f"{refusal.reason}\n".encode()
        exchange.start(refusal.status, REFUSAL_BLOCK, len(body))
        exchange.write(body)
        exchange.flush()
        exchange.finished = True
        self._linger()

    # Flow, time, end

    def hold_reading(self) -> None:
        self._held = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def release_reading(self) -> None:
        self._held = False
        if not self._queue and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def busy(self) -> bool:
        return self._current is not None

    def check_time(self, now: float) -> None:
        limits = self._server.limits
        if self._lingers_since:
            if now - self._lingers_since > limits.linger:
                self.transport.abort()
        elif self._current is not None:
            self._check_progress(now)
        elif not self._waits:
            if now - self._since > limits.header_wait:
                self._refuse(Refusal(408, f"the request's head took longer than {limits.header_wait:g} s to arrive"))
        elif now - self._since > limits.idle:
            self.transport.close()

    def _check_progress(self, now: float) -> None:
        unwritten = self.transport.get_write_buffer_size()
        if unwritten == 0 or unwritten != self._unwritten:
            self._unwritten = unwritten
            self._since = now
        elif now - self._since > self._server.limits.stalled_write:
            self.abort()

    def drain(self) -> None:
        if self._current is None:
            self.transport.close()
        else:
            self._current.keep_alive = False

    def abort(self, reset: bool = False) -> None:
        sock = self.transport.get_extra_info("socket")
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        self._current = None
        self._server.connections.discard(self)
        return self.transport, self._behind


class _Rest(Idle):
    """The owner of an answered exchange whose request has not ended."""

    def __init__(self, connection: ServerConnection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange
        exchange.finished = False

    def body_end(self) -> None:
        self._exchange.finished = True
        self._connection.rest_read(self._exchange)


class _BodyOnly:
    """Passes a parser's body callbacks on, and none about the head that was made up for it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.on_body = connection.on_body
        self._connection = connection

    def on_header(self, name: bytes, value: bytes) -> None: ...

    def on_message_complete(self) -> None:
        connection = self._connection
        connection.on_message_complete()
        connection._parser = httptools.HttpRequestParser(connection)


_USUAL_CONNECTION_TOKENS = {b"close", b"keep-alive", b"upgrade", b""}

REFUSAL_BLOCK = field_block(
    [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Stoker-Error", b"client; malformed-request"),
    ]
)


def _refusal_of(error: httptools.HttpParserError) -> Refusal:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(400, "the request's method is not known")
    detail = str(error)
    if "PRI" in detail:
        return Refusal(505, "HTTP/2 is not spoken here, HTTP/1.1 is")
    return Refusal(400, f"the request is malformed: {detail}")


def _origin_form(method: bytes, target: bytes) -> bytes:
    """The path and query of a target in another form (RFC 9112, section 3.2), or a refusal."""
    if method == b"CONNECT":
        raise Refusal(405, "CONNECT is not served here")
    if method == b"OPTIONS" and target == b"*":
        return b"/*"
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https") or b"#" in target:
        raise Refusal(400, "the request's target is neither a path nor a URL")
    slash = rest.find(b"/")
    query = rest.find(b"?")
    if query != -1 and (slash == -1 or query < slash):
        return b"/" + rest[query:]
    return rest[slash:] if slash != -1 else b"/"
