"""A call in mode `http`: the request goes to the program as it came, the answer comes back as it is given.

Both bodies pass as they come, with back-pressure, so events, lines and upgrades need no case of their own; only their
time is not bounded by `exec_timeout`. Redirects are answers like others.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from stoker_watchdog.call import Call
from stoker_watchdog.event import Body
from stoker_watchdog.options import go_duration
from stoker_watchdog.pump import Pump
from stoker_wire.client import AnswerHead, ClientConnection
from stoker_wire.message import Field, field_block
from stoker_wire.server import CHUNKED, IDLE, Exchange
from stoker_wire.tunnel import Tunnel

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.http_runner import HttpRunner

_SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
_DEATH_SECONDS = 0.05
_ERROR = b"Content-Type: text/plain; charset=utf-8\r\nX-OpenFaaS-Internal: of-watchdog\r\nX-Stoker-Error: %b\r\n%b"


class HttpCall(Call):
    """Owner of an exchange, receiver of the program's answer. `sent` counts the bytes of the answer's body."""

    __slots__ = ("_body", "_connection", "_gathered", "_pump", "_repeated", "_runner", "_timer", "sent")

    def __init__(self, runner: HttpRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(front, exchange)
        self._runner = runner
        self._connection: ClientConnection | None = None
        self._gathered: list[bytes] = []
        self._body = Body() if runner.options.buffer_http and exchange.length else None
        self._pump: Pump | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._repeated = False
        self.sent = 0

    def begin(self) -> None:
        exchange = self._exchange
        self._bound_time()
        if self._body is not None:
            exchange.accept_body()
            return
        self._front.admit(self)
        if self._connection is None and exchange.length and not exchange.finished:
            exchange.hold_body()

    def _bound_time(self) -> None:
        """Streams may last as long as they like; a caller may ask for less time than the function's limit."""
        exchange, limit = self._exchange, self._front.settings.timeout
        wished = 0.0
        for name, value in exchange.fields:
            lowered = name.lower()
            if lowered == b"accept" and (b"text/event-stream" in value or b"application/x-ndjson" in value):
                self._front.unbound(self)
                return
            if lowered == b"x-timeout":
                wished = go_duration(value.decode("latin-1")) or 0.0
        if exchange.upgrade:
            self._front.unbound(self)
        elif 0 < wished < limit:
            self._timer = self._front.loop.call_later(wished, self._expire_early)

    def _expire_early(self) -> None:
        self._front.unbound(self)
        self.expire()

    def run(self) -> None:
        self.runs = True
        self._connect()

    def _connect(self) -> None:
        if not self._runner.child.alive:
            self._fail(b"function; crashed", f"the program {self._runner.child.name!r} has ended")
            return
        connection = self._runner.pool.take(self._runner.address)
        if connection is not None:
            self._send(connection)
        else:
            self._runner.pool.dial(self._runner.address, self._dialled)

    def _dialled(self, connection: ClientConnection | None, reason: str) -> None:
        if self._closed:
            if connection is not None:
                self._runner.pool.put(connection)
            self.finish()
        elif connection is None:
            self._fail(b"function; upstream", f"{self._upstream} cannot be reached: {reason}")
        else:
            self._send(connection)

    @property
    def _upstream(self) -> str:
        return f"the program at {self._runner.options.upstream_url} (port {self._runner.child.upstream.port})"

    def _send(self, connection: ClientConnection) -> None:
        self._connection = connection
        exchange = self._exchange
        more = self._body is not None or (exchange.length != 0 and not exchange.complete)
        early = b"".join(self._gathered)
        self._gathered = []
        connection.send(
            self,
            self._head() + early,
            head_only=exchange.method == b"HEAD",
            upgrades=exchange.upgrade != b"",
            more=more,
        )
        if self._body is not None:
            self._pump = Pump(
                self._front.loop, self._body.file(), self._body.size, connection.send_body, self._end_buffered
            )
            self._pump.run()
        elif exchange.length:
            exchange.accept_body()
            exchange.release_body()

    def _head(self) -> bytes:
        exchange = self._exchange
        return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            exchange.method,
            self._runner.base,
            exchange.target,
            exchange.host,
            field_block(exchange.fields),
            self._framing(),
        )

    def _framing(self) -> bytes:
        exchange = self._exchange
        if self._body is not None:
            return b"Content-Length: %d\r\n" % self._body.size
        if exchange.length == CHUNKED:
            return b"Transfer-Encoding: chunked\r\n"
        if exchange.length:
            return b"Content-Length: %d\r\n" % exchange.length
        if exchange.upgrade:
            return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % exchange.upgrade
        return b""

    def _end_buffered(self, whole: bool) -> None:
        self._pump = None
        if self._connection is not None:
            self._connection.end_body()

    # Owner of the exchange: the request's way to the program

    def body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.add(data)
        elif self._exchange.length == CHUNKED:
            self._gathered += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._gathered.append(data)

    def body_end(self) -> None:
        if self._body is not None:
            self._front.admit(self)
            return
        if self._exchange.length == CHUNKED:
            self._gathered.append(b"0\r\n\r\n")
        self.flush()
        if self._connection is not None:
            self._connection.end_body()
        else:
            self._exchange.release_body()  # nothing of it is left to hold, and a client that leaves is noticed

    def flush(self) -> None:
        if self._gathered and self._connection is not None:
            data = b"".join(self._gathered)
            self._gathered = []
            self._connection.send_body(data)

    def hold(self) -> None:
        if self._connection is not None:
            self._connection.hold()

    def release(self) -> None:
        if self._connection is not None:
            self._connection.release()

    # Receiver of the answer: the way back

    def answer(self, head: AnswerHead) -> None:
        if head.memo is None:
            head.memo = field_block([field for field in head.fields if field[0].lower() != b"x-duration-seconds"])
        if _streams(head.fields):
            self._front.unbound(self)
        self._exchange.start(head.status, head.memo + self._duration_line, head.length)

    def data(self, data: bytes) -> None:
        self.sent += len(data)
        self._exchange.write(data)

    def flush_answer(self) -> None:
        self._exchange.flush()

    def end(self) -> None:
        self._connection = None
        self._exchange.finish()
        self._count(self._exchange.status)
        self.finish()

    def broken(self, reason: str, answered: bool) -> None:
        connection, self._connection = self._connection, None
        exchange = self._exchange
        if self._closed:
            return
        if exchange.started:
            exchange.abort()
            self._count(502)
            self.finish()
        elif connection is not None and connection.reused and not answered and self._may_repeat():
            self._repeated = True
            self._connect()
        else:
            self._front.loop.call_later(_DEATH_SECONDS, self._broken_off, reason)

    def _broken_off(self, reason: str) -> None:
        """A process that ends closes its connections first; by now its own end is known."""
        if self._closed:
            self.finish()
        elif self._runner.child.alive:
            self._fail(b"function; upstream", f"{self._upstream} broke off before it answered: {reason}")
        else:
            self._fail(b"function; crashed", f"the program {self._runner.child.name!r} ended during the call")

    def _may_repeat(self) -> bool:
        """The connection had been idle, and its other end has closed it meanwhile."""
        return not self._repeated and self._exchange.length == 0 and self._exchange.method in _SAFE_METHODS

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        self._connection = None
        client, from_client = self._exchange.switch(field_block(fields))
        self._exchange.owner = IDLE
        self._front.unbound(self)
        Tunnel(client, transport, self._tunnel_closed).open(from_client, behind)

    def _tunnel_closed(self) -> None:
        self._count(101)
        self.finish()

    def hold_request(self) -> None:
        if self._pump is not None:
            self._pump.hold()
        else:
            self._exchange.hold_body()

    def release_request(self) -> None:
        if self._pump is not None:
            self._pump.release()
        else:
            self._exchange.release_body()

    # Ends

    def _fail(self, code: bytes, reason: str) -> None:
        if not self._exchange.finished:
            self._front.log.lines(self.log.id, [reason])
            self._respond(502, code, reason)
            self._count(502)
        self.finish()

    def _respond(self, status: int, code: bytes, reason: str) -> None:
        text = f"{reason}\n".encode()
        self.sent = len(text)
        self._exchange.respond(status, _ERROR % (code, self._duration_line), text)

    def respond_timeout(self) -> None:
        limit = f"{monotonic() - self.begun:.1f} s" if self._timer else f"{self._front.settings.timeout:g} s"
        self._respond(504, b"function; timeout", f"the call took longer than its limit ({limit}): raise exec_timeout")

    def stop(self) -> None:
        """The connection is closed, which is how the program learns of it."""
        if self._pump is not None:
            self._pump.stop()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
            self.finish()

    def release_input(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._body is not None:
            self._body.close()

    def _count(self, status: int) -> None:
        self._front.count(self._exchange, status, self.begun, self.sent)

    @property
    def _duration_line(self) -> bytes:
        return b"X-Duration-Seconds: %.6f\r\n" % (monotonic() - self.begun)


def _streams(fields: list[Field]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith((b"text/event-stream", b"application/x-ndjson"))
        for name, value in fields
    )


class Probe:
    """One GET of a path of the program, of which only the status matters."""

    def __init__(self, runner: HttpRunner, path: str) -> None:
        self._runner = runner
        self._path = path
        self._connection: ClientConnection | None = None
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask(self) -> str:
        """Empty when the status is below 400, else the reason why not."""
        self._runner.pool.dial(self._runner.address, self._dialled)
        return await self._answer

    def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _dialled(self, connection: ClientConnection | None, reason: str) -> None:
        if connection is None:
            self._say(f"the program cannot be reached: {reason}")
            return
        self._connection = connection
        path = self._runner.base + self._path.encode("latin-1", "replace")
        connection.send(self, b"GET %b HTTP/1.1\r\nHost: localhost\r\nUser-Agent: stoker\r\n\r\n" % path)

    def _say(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_result(reason)

    def answer(self, head: AnswerHead) -> None:
        self._say("" if head.status < 400 else f"ready_path {self._path} answered {head.status}")

    def data(self, data: bytes) -> None: ...

    def end(self) -> None:
        self._connection = None

    def flush_answer(self) -> None: ...

    def broken(self, reason: str, answered: bool) -> None:
        self._connection = None
        self._say(f"ready_path {self._path} broke off: {reason}")

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        transport.close()

    def hold_request(self) -> None: ...

    def release_request(self) -> None: ...
