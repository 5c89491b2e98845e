"""The server side of a connection: bytes in, exchanges out; answers in order, whatever their owners do.

One `ServerConnection` per accepted socket, one `Exchange` per request. llhttp in its strict mode is the first judge of
every byte; what it lets pass and two parsers could still read differently is refused by `request_rules`. Pipelined
requests wait parsed until the one before them is answered, and reading stops meanwhile, so they cost at most one read's
memory. A client that closes its sending half is taken to have gone, as nginx does: nothing else tells of a caller who
hung up, and the call that it no longer waits for must end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from stoker_wire.exchange import CHUNKED, IDLE, Exchange, Idle, Owner
from stoker_wire.limits import Limits
from stoker_wire.message import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    ORDINARY,
    TRANSFER_ENCODING,
    UPGRADE,
    Field,
    Refusal,
    end_to_end,
    field_block,
    header_kind,
    named_by,
)
from stoker_wire.outbox import Outbox
from stoker_wire.request_rules import check_coding, check_host, minor_version, origin_form, refusal_of

__all__ = ["CHUNKED", "IDLE", "Exchange", "Handler", "Idle", "Owner", "Server", "ServerConnection"]

_TICK = 0.5
_STOPPED = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_MAX_REST = 64 * 1024
"""A rest of a body that nobody wants is read, to keep the connection, up to so many bytes."""
_MAX_BEHIND = 64 * 1024
"""What a client may send behind an upgrade request before that is answered."""

Handler = Callable[[Exchange], None]
"""Called when a request's head is complete and it is its turn. Sets `exchange.owner`, or answers at once."""


class Server:
    """What the connections of one process share: handler, limits, a coarse clock, and their own set."""

    def __init__(self, handler: Handler, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self.handler = handler
        self.limits = limits
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self.silence = 0.0
        self._loop = asyncio.get_running_loop()
        self._tick_seconds = min(_TICK, limits.shortest_wait / 2)
        self.now = self._loop.time()
        self.outbox = Outbox()
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    def __call__(self) -> ServerConnection:
        """The protocol factory for `loop.create_server` and its kin."""
        return ServerConnection(self)

    def _tick(self) -> None:
        self.now = self._loop.time()
        for connection in list(self.connections):
            connection.check_time(self.now)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    def drain(self, silence: float = 0.0) -> None:
        """From now on each answer says that its connection closes. Idle ones close at once, or when nothing has come
        over them for `silence` seconds (a second at least, if any): closing them under a client's next request would
        fail that.
        """
        self.draining = True
        self.silence = silence
        for connection in list(self.connections):
            connection.drain()

    @property
    def busy(self) -> int:
        """How many connections have an exchange that is not answered yet."""
        return sum(connection.busy for connection in self.connections)

    @property
    def listens(self) -> bool:
        """Whether a request may still come over some connection."""
        return any(connection.listens for connection in self.connections)

    def close(self) -> None:
        self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()


class ServerConnection(asyncio.Protocol):
    """One accepted connection.

    `_current` is being answered, `_queue` waits for its turn, `_parsing` is the one whose body is coming in. `_over`:
    the last answer is given, and whatever else comes is thrown away.
    """

    __slots__ = (
        "_advancing",
        "_behind",
        "_blocked",
        "_current",
        "_fed",
        "_fields",
        "_full",
        "_held",
        "_hop",
        "_host",
        "_in_body",
        "_length",
        "_lingers_since",
        "_moved",
        "_over",
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
        "_unwritten_since",
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
        self._over = False
        self._lingers_since = 0.0
        self._since = server.now
        self._held = False  # by the current exchange
        self._blocked = False  # something must be looked at when the current exchange ends
        self._full = False  # the client has not taken what was written
        self._advancing = False
        self._fed = 0
        self._moved = False  # the parser has come to the end of a head, or to a byte of a body
        self._behind = b""
        self._in_body = False
        self._waits = True
        self._switches = False
        self._unwritten = 0
        self._unwritten_since = 0.0
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
        self._over = True
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None and not current.finished:
            current.finished = True
            current.owner.client_gone()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True
        if self._current is not None:
            self._current.owner.hold()

    def resume_writing(self) -> None:
        self._full = False
        if self._current is not None:
            self._current.owner.release()
        else:
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._over or self._refusal is not None:
            return
        if self._switches:
            self._keep_behind(data)
            return
        if self._waits:
            self._waits = False
            self._since = self._server.now
        self._moved = False
        stopped: Exception | None = None
        try:
            self._parser.feed_data(data)
        except _STOPPED as error:
            stopped = error
        if stopped is not None:
            self._end_feed(data, stopped)
        if not self._waits and not self._moved:
            self._count_unmoved(len(data))
        elif self._target:
            self._waits = False  # the beginning of one more head
        current = self._current
        if current is not None:
            current.owner.flush()

    def _end_feed(self, data: bytes, error: Exception) -> None:
        """llhttp has stopped: behind an upgrade it goes on, for anything else the client gets a refusal.

        It must not be fed while an exception is being handled: that one would become the context of the next, where
        httptools puts the error of a callback.
        """
        while isinstance(error, httptools.HttpParserUpgrade):
            data = self._end_upgraded_head(data[error.args[0] :])
            try:
                self._parser.feed_data(data)
                return
            except _STOPPED as next_error:
                error = next_error
        if isinstance(error, httptools.HttpParserCallbackError):
            self._refuse(error.__context__)
        else:
            self._refuse(refusal_of(error))

    def _count_unmoved(self, size: int) -> None:
        """Bound what llhttp swallows between two of its callbacks: endless header lines, chunk extensions, trailers."""
        self._fed += size
        if self._fed > self._server.limits.head + self._server.limits.request_line:
            self._refuse(self._head_too_large())

    def _head_too_large(self) -> Refusal:
        return Refusal(431, f"the request's head is larger than {self._server.limits.head} bytes")

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
            self._host = check_host(value)
        elif kind == CONTENT_LENGTH:
            self._length = int(value)
        elif kind == TRANSFER_ENCODING:
            check_coding(value)
            self._length = CHUNKED
        else:
            earlier = self._hop.get(kind)
            self._hop[kind] = value if earlier is None else earlier + b"," + value

    def on_headers_complete(self) -> None:
        if self._over:
            return
        exchange = Exchange(self)
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive() and not self._server.draining
        version = self._parser.get_http_version()
        if version != "1.1":
            exchange.minor = minor_version(version, chunked=self._length == CHUNKED)
        exchange.target = self._target
        if self._host is not None:
            exchange.host = self._host
        elif exchange.minor == 1:
            raise Refusal(400, "the request has no Host header")
        exchange.fields = self._fields
        exchange.length = self._length
        if self._target[0] != 47 or b"#" in self._target or exchange.method == b"CONNECT":  # "/"
            authority, exchange.target = origin_form(exchange.method, self._target)
            exchange.host = authority or exchange.host
        if self._hop:
            self._read_hop_headers(exchange)
        self._reset_head()
        self._in_body = self._moved = True
        self._fed = 0
        exchange.complete = exchange.length == 0
        self._parsing = exchange
        if self._current is None and not self._full:
            self._begin(exchange)
        else:
            self._wait_in_line(exchange)

    def on_body(self, data: bytes) -> None:
        self._moved = True
        self._fed = 0
        self._since = self._server.now
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
        if exchange is None or exchange.complete:
            return
        exchange.complete = True
        if exchange is not self._current:
            return
        if exchange.finished:
            self._end_rest(exchange)
        else:
            exchange.owner.body_end()

    # Reading a head

    def _read_hop_headers(self, exchange: Exchange) -> None:
        connection = self._hop.get(CONNECTION)
        if connection is not None:
            exchange.fields = end_to_end(exchange.fields, connection)
            named = named_by(connection)
            if b"close" in named:
                exchange.keep_alive = False  # whatever else it says
            if UPGRADE in self._hop and b"upgrade" in named:
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

    def _end_upgraded_head(self, behind: bytes) -> bytes:
        """llhttp stops behind a head that asks for an upgrade. Only WebSocket is switched to; others go on as HTTP.

        Clients offer `h2c` on ordinary requests, with and without a body. Returns what is to be parsed as HTTP.
        """
        exchange = self._parsing
        if self._over or self._refusal is not None:
            return b""
        if exchange is None or exchange.upgrade:
            self._keep_behind(behind)
            return b""
        self._switches = False
        if exchange.length:
            self._parser = _parser_of_body(self, exchange)
        else:
            self._parser = httptools.HttpRequestParser(self)
            self.on_message_complete()
        return behind

    def _keep_behind(self, data: bytes) -> None:
        self._behind += data
        if len(self._behind) > _MAX_BEHIND:
            self.transport.pause_reading()

    # The order of exchanges

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self._server.handler(exchange)

    def _wait_in_line(self, exchange: Exchange) -> None:
        if len(self._queue) >= self._server.limits.pipelined:
            raise Refusal(429, f"more than {self._server.limits.pipelined} requests wait on this connection")
        self._queue.append(exchange)
        self._blocked = True
        self.transport.pause_reading()

    def answered(self, exchange: Exchange) -> None:
        """The current exchange's answer is written; go on to what follows it."""
        if exchange is not self._current:
            return
        self._since = self._server.now
        if not exchange.keep_alive:
            self._close_behind_answer(exchange)
        elif exchange.complete:
            self._current = None
            if self._blocked:
                self._next()
        else:
            # The rest of a body that nobody wanted is read and thrown away; `reads_on` bounded it.
            exchange.owner = IDLE
            self.release_reading()

    def reads_on(self, exchange: Exchange) -> bool:
        """Whether the rest of a body is small enough to be read for the sake of keeping the connection."""
        return 0 < exchange.length - exchange.received <= _MAX_REST and not exchange.expects_continue

    def _end_rest(self, exchange: Exchange) -> None:
        if exchange.keep_alive:
            self._current = None
            self._next()
        else:
            self._close_behind_answer(exchange)

    def _next(self) -> None:
        """Begin what waits, one after the other; exchanges that are answered at once do not come back in here."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._queue and self._may_begin:
                self._held = False
                self._begin(exchange := self._queue.popleft())
                if exchange is self._current:
                    self._hand_early_body(exchange)
        finally:
            self._advancing = False
        if not self._queue and not self._over:
            self._unblock()

    @property
    def _may_begin(self) -> bool:
        return self._current is None and not self._full and not self._over

    def _unblock(self) -> None:
        """Nothing waits any more."""
        if self._current is None:
            self._held = self._blocked = False
            if self._refusal is not None:
                self._answer_refusal(self._refusal)
        if not self._held:
            self.release_reading()

    def _hand_early_body(self, exchange: Exchange) -> None:
        for data in exchange.take_early():
            if not exchange.finished:
                exchange.owner.body(data)
        if exchange.length and exchange.complete and not exchange.finished:
            exchange.owner.body_end()
        if exchange is self._current:
            exchange.owner.flush()

    def _close_behind_answer(self, exchange: Exchange) -> None:
        read_all = exchange.complete and self._refusal is None and not self._behind and not self._queue
        self._current = None
        self._queue.clear()
        if read_all:
            self._over = True
            self.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Read on for a while and throw away, then close; closing at once would make the kernel send a reset."""
        self._over = True
        self._lingers_since = self._server.now or 1e-9
        if not self.secure and self.transport.can_write_eof() and not self.transport.is_closing():
            self._server.outbox.flush()
            self.transport.write_eof()
        self.release_reading()

    # Refusals

    def _refuse(self, error: BaseException | None) -> None:
        if not isinstance(error, Refusal):
            self._over = True
            raise error or RuntimeError("the parser's callback failed without an error")
        if self._over:
            return
        self._refusal = error
        self._blocked = True
        if self._parsing is not None and self._parsing in self._queue:
            self._queue.remove(self._parsing)
        current = self._current
        if current is None:
            if not self._queue:
                self._answer_refusal(error)
        elif current is self._parsing:
            self._refuse_current(current, error)

    def _refuse_current(self, exchange: Exchange, refusal: Refusal) -> None:
        """The exchange that is being answered turns out to be malformed in its body."""
        self._current = None
        self._queue.clear()
        if exchange.finished:
            self._linger()
            return
        exchange.finished = True
        owner, exchange.owner = exchange.owner, IDLE
        owner.client_gone()
        if exchange.started:
            self.abort()
        else:
            self._answer_refusal(refusal)

    def _answer_refusal(self, refusal: Refusal) -> None:
        exchange = Exchange(self)
        if self._parsing is not None:
            exchange.method = self._parsing.method
        elif self._target:
            exchange.method = self._parser.get_method()
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
        self._held = self._blocked = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def release_reading(self) -> None:
        self._held = False
        if not self._queue and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def busy(self) -> bool:
        return self._current is not None and not self._current.finished

    @property
    def listens(self) -> bool:
        return self._current is None and not self._over

    def check_time(self, now: float) -> None:
        """Called every tick: end what takes longer than its limit."""
        limits = self._server.limits
        unwritten = self.transport.get_write_buffer_size()
        if unwritten:
            self._check_writing(unwritten, now)
        elif self._lingers_since:
            self._unwritten = 0
            if now - self._lingers_since > limits.linger:
                self._end_linger()
        elif self._current is not None:
            self._check_body(self._current, now)
        elif self._over:
            pass
        elif not self._waits:
            if now - self._since > limits.header_wait:
                self._refuse(Refusal(408, f"the request's head took longer than {limits.header_wait:g} s to arrive"))
        elif now - self._since > (self._server.silence if self._server.draining else limits.idle):
            self._over = True
            self.close()

    def _end_linger(self) -> None:
        if self.secure and not self.transport.is_closing():
            self.close()  # says so to the peer; the next tick aborts
        else:
            self.abort()

    def _check_writing(self, unwritten: int, now: float) -> None:
        self._since = now  # what the client has to send is not waited for while it has something to take
        if self._lingers_since:
            self._lingers_since = now
        if unwritten != self._unwritten:
            self._unwritten = unwritten
            self._unwritten_since = now
        elif now - self._unwritten_since > self._server.limits.stalled_write:
            self.abort()

    def _check_body(self, exchange: Exchange, now: float) -> None:
        self._unwritten = 0
        awaited = not exchange.complete and not self._held and not exchange.expects_continue
        if not awaited or (exchange.started and not exchange.finished):
            self._since = now
        elif now - self._since > self._server.limits.body_wait:
            wait = self._server.limits.body_wait
            self._refuse(Refusal(408, f"no byte of the request's body came for {wait:g} s"))

    def drain(self) -> None:
        silence = self._server.silence
        if self._current is not None:
            # An answer whose head has gone has promised to go on: the next one takes that back.
            self._current.keep_alive = self._current.keep_alive and self._current.started and bool(silence)
        elif self._queue:
            self._queue[0].keep_alive = False
        elif not self._over and (not silence or (self._waits and self._server.now - self._since > silence)):
            self._over = True
            self.close()

    def send(self, data: bytes) -> None:
        self._server.outbox.put(self.transport, data)

    def close(self) -> None:
        """Close when what was sent has gone out."""
        self._server.outbox.flush()
        self.transport.close()

    def abort(self, reset: bool = False) -> None:
        self._over = True
        self._server.outbox.flush()
        sock = self.transport.get_extra_info("socket")
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        self._over = True
        self._current = None
        self._server.connections.discard(self)
        self._server.outbox.flush()
        return self.transport, self._behind


class _BodyParser:
    """Callbacks of a parser that was fed a head of our making, which is ignored; the body and all behind it are not."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._in_made_up_head = True
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_url(self, url: bytes) -> None:
        if not self._in_made_up_head:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_made_up_head:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._in_made_up_head:
            self._in_made_up_head = False
        else:
            self._connection.on_headers_complete()


def _parser_of_body(connection: ServerConnection, exchange: Exchange) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(_BodyParser(connection))
    framing = b"Transfer-Encoding: chunked" if exchange.length == CHUNKED else b"Content-Length: %d" % exchange.length
    close = b"" if exchange.keep_alive else b"Connection: close\r\n"
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n%b%b\r\n\r\n" % (close, framing))
    return parser


REFUSAL_BLOCK = field_block(
    [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Stoker-Error", b"client; malformed-request"),
    ]
)
