"""The life of one call, from its head to its last byte: admit, choose, pass on, pass back, count.

This is the hot path. An ordinary call makes no task, sets no timer (a tick looks at the oldest calls), reads the clock
twice, and writes once to each side: what one read brought is gathered and sent at `flush`.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from stoker_gateway.proxy.entry import Entry, ReplicaTarget
from stoker_gateway.proxy.headers import NO_STAMP, answer_block, error_block, pass_on, request_head
from stoker_gateway.routes import Loss
from stoker_sdk.faults import fault_code
from stoker_wire.client import AnswerHead, ClientConnection
from stoker_wire.message import Field
from stoker_wire.server import CHUNKED, IDLE, Exchange
from stoker_wire.tunnel import Tunnel

if TYPE_CHECKING:
    from stoker_gateway.proxy.proxy import Proxy

_SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
_MAX_TRIES = 5
_MAX_KEPT = 64 * 1024
_LOSS_SECONDS = 0.5
"""How long a call whose replica broke off waits to be told why."""


class Call:
    """One exchange with a client, joined to one connection to a replica. Owner of the one, receiver of the other."""

    # Defaults stand on the class: an ordinary call changes few of them, and setting all for each takes a microsecond.
    _connection: ClientConnection | None = None
    _target: ReplicaTarget | None = None
    _body: list[bytes] | None = None
    _kept: bytes | None = b""
    _sent = False
    _whole = False  # the request's body has come to its end
    _queued = False
    _done = False
    _tries = 0
    _head = b""
    _stamp = NO_STAMP
    lost = ""
    _reason = ""

    def __init__(self, proxy: Proxy, exchange: Exchange, entry: Entry, path: bytes) -> None:
        self._proxy = proxy
        self._exchange = exchange
        self._entry = entry
        self._path = path
        self.begun = monotonic()

    def __repr__(self) -> str:
        return f"<Call {self._stamp.call_id.decode()} {self._entry.key} to {self._target}>"

    # Admission

    def begin(self) -> None:
        """Send the call to a replica now, let it wait for one, or refuse it."""
        entry = self._entry
        exchange = self._exchange
        exchange.owner = self
        entry.started += 1
        entry.inflight += 1
        entry.calls[self] = self.begun + entry.timeout
        self._stamp, self._head = request_head(self._proxy, exchange, self._path, self.begun)
        if exchange.length > self._proxy.max_body and self._too_large(exchange.length):
            return
        if entry.waiting or (target := entry.choose(self.begun)) is None:
            self._wait()
        else:
            self._connect(target)

    def _too_large(self, size: int) -> bool:
        """Refuse a body of so many bytes, if they are too many for whoever brings it."""
        limit = self._proxy.largest_body(self._exchange)
        if size > limit:
            self._fail(413, "client", "body-too-large", f"the body is larger than {limit} bytes")
        return size > limit

    def _wait(self) -> None:
        entry = self._entry
        if entry.removed:
            self.gone()
        elif entry.failure and not entry.targets:
            self._cannot_start(entry.failure)
        elif len(entry.waiting) >= self._proxy.max_waiting:
            self._fail(
                429,
                "platform",
                "too-many-calls",
                f"{entry.key} has {len(entry.waiting)} calls waiting already; scale it up or call again later",
            )
        else:
            self._queued = True
            entry.waiting.append(self)
            self._hold_body()
            self._proxy.wake(entry)

    def _hold_body(self) -> None:
        # A call without a body is read on, because that is how a client that leaves is noticed.
        if self._exchange.length:
            self._exchange.hold_body()

    def proceed(self, target: ReplicaTarget) -> None:
        """The wait is over."""
        self._queued = False
        self._connect(target)

    def _connect(self, target: ReplicaTarget) -> None:
        self._target = target
        target.inflight += 1
        connection = self._proxy.pool.take(target.address)
        if connection is not None:
            self._send(connection)
        else:
            self._hold_body()
            self._proxy.pool.dial(target.address, self._dialled)

    def _dialled(self, connection: ClientConnection | None, reason: str) -> None:
        if self._done:
            if connection is not None:
                self._proxy.pool.put(connection)
        elif connection is None:
            self._try_elsewhere(f"it could not be reached: {reason}")
        else:
            self._send(connection)

    def _send(self, connection: ClientConnection) -> None:
        self._connection = connection
        exchange = self._exchange
        if exchange.length == 0:
            head_only = exchange.method == b"HEAD"
            connection.send(self, self._head, head_only=head_only, upgrades=exchange.upgrade != b"")
            return
        exchange.accept_body()
        body = b"".join(self._body or ())
        self._body = None
        # What has come of the body already goes out with the head.
        self._sent = True
        self._keep(body)
        connection.send(self, self._head + body, head_only=exchange.method == b"HEAD", more=not self._whole)
        exchange.release_body()

    # Owner of the exchange: the request's way to the replica

    def body(self, data: bytes) -> None:
        if self._exchange.received > self._proxy.max_body and self._too_large(self._exchange.received):
            return
        self._gather(*(_chunk(data) if self._exchange.length == CHUNKED else (data,)))

    def body_end(self) -> None:
        if self._exchange.length == CHUNKED:
            self._gather(b"0\r\n\r\n")
        self._whole = True
        self.flush()
        if self._sent and self._connection is not None:
            self._connection.end_body()
        else:
            self._exchange.release_body()  # nothing of it is left to hold, and a client that leaves is noticed

    def _gather(self, *pieces: bytes) -> None:
        if self._body is None:
            self._body = list(pieces)
        else:
            self._body += pieces

    def flush(self) -> None:
        if self._body and self._sent and self._connection is not None:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = None
            self._keep(body)
            self._connection.send_body(body)

    def _keep(self, body: bytes) -> None:
        """Remember what was sent of a small body, in case that the replica ends before it has read it."""
        if self._kept is not None:
            self._kept = self._kept + body if len(self._kept) + len(body) <= _MAX_KEPT else None

    def client_gone(self) -> None:
        self._end(499)

    def hold(self) -> None:
        if self._connection is not None:
            self._connection.hold()

    def release(self) -> None:
        if self._connection is not None:
            self._connection.release()

    # Receiver of the answer: the way back

    def answer(self, head: AnswerHead) -> None:
        seconds = monotonic() - self.begun
        exchange = self._exchange
        known = head.memo
        if known is None:
            known = head.memo = pass_on(head.fields)
        if head.status >= 429:
            self._note_answer(head)
        exchange.start(head.status, answer_block(self._proxy, exchange, known, self._stamp, seconds), head.length)
        if known.streams:
            # Events may come for hours: the timeout bounds the silence between them, not the whole.
            self._entry.calls.pop(self, None)
            self._entry.streams[self] = self._proxy.now

    def data(self, data: bytes) -> None:
        self._exchange.write(data)

    def flush_answer(self) -> None:
        if self._entry.streams and self in self._entry.streams:
            self._entry.streams[self] = self._proxy.now
        self._exchange.flush()

    def end(self) -> None:
        self._connection = None
        exchange = self._exchange
        status = exchange.status
        exchange.finish()
        self._end(status)

    def broken(self, reason: str, answered: bool) -> None:
        connection, self._connection = self._connection, None
        if self._done:
            return
        if self._exchange.started:
            self._exchange.abort()
            self._note("answer-broken", "function", 502, f"its answer broke off: {reason}")
            self._end(502)
        elif not answered and self._may_repeat(connection):
            self._take_body_back()
            self._try_elsewhere(f"its connection broke: {reason}", stale=connection is not None and connection.reused)
        else:
            self._lament(reason)

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        block = answer_block(self._proxy, self._exchange, pass_on(fields), self._stamp, monotonic() - self.begun)
        client, from_client = self._exchange.switch(block)
        self._connection = None
        self._entry.calls.pop(self, None)
        self._exchange.owner = IDLE
        Tunnel(client, transport, lambda: self._end(101)).open(from_client, behind)

    def hold_request(self) -> None:
        self._exchange.hold_body()

    def release_request(self) -> None:
        self._exchange.release_body()

    # Trouble

    def _may_repeat(self, connection: ClientConnection | None) -> bool:
        """Nothing of the answer came. Repeat what is safe by its method, or was not read, if its body is not gone.

        A replica runs a call when it has read all of it, so one that left bytes unread has not run it.
        """
        if connection is None or (self._sent and self._kept is None):
            return False
        return connection.unread or (self._exchange.method in _SAFE_METHODS and not self._sent)

    def _lament(self, reason: str) -> None:
        """The replica left without an answer. If its process has ended, control will say why in a moment."""
        entry = self._entry
        target = self._target
        if self._proxy.is_own(entry):  # and nobody will say why
            words = "what was asked may be done or not: look, and ask again"
            self._fail(503, "platform", "unavailable", f"{entry.key} ended before it answered ({reason}); {words}")
        elif target is None:
            self._broke_off(reason)
        elif (loss := entry.losses.get(target.id)) is not None:
            self.lost_to(loss)
        else:
            self.lost, self._reason = target.id, reason
            if entry.bereaved is None:
                entry.bereaved = {}
            entry.bereaved[self] = monotonic() + _LOSS_SECONDS

    def lost_to(self, loss: Loss) -> None:
        """This is why the replica ended."""
        self._fail(502, "function", loss.code, f"{self._entry.key}: {loss.reason}")

    def unexplained(self) -> None:
        """Nothing was heard of the replica: only its connection broke."""
        self._broke_off(self._reason)

    def _broke_off(self, reason: str) -> None:
        self._fail(
            502,
            "function",
            "answer-broken",
            f"{self._entry.key} broke off before it answered ({reason}): `stoker logs` has what it printed",
        )

    def _take_body_back(self) -> None:
        if self._sent and self._kept is not None:
            self._body = [self._kept, *(self._body or ())]
            self._sent, self._kept = False, b""

    def _try_elsewhere(self, reason: str, *, stale: bool = False) -> None:
        """`stale`: the connection had been idle, which says nothing against its replica."""
        target, self._target = self._target, None
        if target is not None:
            target.inflight -= 1
            if not stale:
                target.suspect_until = self._proxy.now + 1.0
        self._tries += 1
        entry = self._entry
        other = entry.choose(self._proxy.now)
        if self._tries > _MAX_TRIES * max(1, len(entry.targets)) and not entry.removed:
            what = entry.key if self._proxy.is_own(entry) else f"no replica of {entry.key}"
            self._fail(503, "platform", "no-replica", f"{what} cannot be reached now: {reason}")
        elif other is None:
            self._wait()
        else:
            self._connect(other)

    def expire(self) -> None:
        """The function's timeout has passed since the call began."""
        entry = self._entry
        limit = f"{entry.timeout:g} s"
        if self._exchange.started:
            self._exchange.abort()
            self._note("timeout", "function", 504, f"{entry.key} took longer than its timeout ({limit})")
            self._end(504)
        elif self._target is None:
            self._fail(
                504,
                "function",
                "timeout-waiting",
                f"{entry.key}: no replica became ready within its timeout ({limit})"
                + (f": {entry.failure}" if entry.failure else ""),
            )
        else:
            self._fail(
                504, "function", "timeout", f"{entry.key} took longer than its timeout ({limit}): raise `timeout`"
            )

    def gone(self) -> None:
        """The function was removed while this call waited."""
        self._queued = False
        self._fail(404, "client", "unknown-function", f"function {self._entry.key} was removed")

    def refuse(self, reason: str) -> None:
        """The function cannot start, so waiting is in vain."""
        self._queued = False
        self._cannot_start(reason)

    def _cannot_start(self, reason: str) -> None:
        entry = self._entry
        self._fail(503, "function", entry.failure_code or "cannot-start", f"{entry.key} cannot serve: {reason}")

    def _fail(self, status: int, side: str, code: str, reason: str) -> None:
        exchange = self._exchange
        if exchange.started and not exchange.finished:
            exchange.abort()
        elif not exchange.finished:
            block = error_block(self._proxy, side, code, self._stamp.call_id, retry=status in (429, 503))
            exchange.respond(status, block, f"{reason}\n".encode())
        if side != "client":
            self._note(code, side, status, reason)
        self._end(status)

    def _note_answer(self, head: AnswerHead) -> None:
        """A replica answered with a fault: its own front says which in `X-Stoker-Error`."""
        for name, value in head.fields:
            if name.lower() == b"x-stoker-error" and (code := fault_code(value.decode("latin-1"))):
                self._note(code, "function", head.status, "")

    def _note(self, code: str, side: str, status: int, reason: str) -> None:
        at = self._proxy.wall_nanoseconds(monotonic())
        self._entry.note_fault(code, side, status, reason, self._stamp.call_id.decode("latin-1"), at)

    def _end(self, status: int) -> None:
        """Give back whatever the call holds, and count it. Safe to call twice."""
        if self._done:
            return
        self._done = True
        self._exchange.owner = IDLE  # no cycle is left behind, so the collector has nothing to do
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        entry = self._entry
        target, self._target = self._target, None
        if target is not None:
            target.inflight -= 1
        elif self._queued:
            entry.waiting.remove(self)
        if self.lost and entry.bereaved is not None:
            entry.bereaved.pop(self, None)
        if entry.calls.pop(self, None) is None:
            entry.streams.pop(self, None)
        entry.inflight -= 1
        entry.count(status, monotonic() - self.begun)
        if entry.waiting:
            self._proxy.serve_waiting(entry)


def _chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    return b"%x\r\n" % len(data), data, b"\r\n"
