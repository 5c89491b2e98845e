"""Publishing to JetStream with many messages in flight, and none stored twice.

What a disk must have before it counts costs the broker a write to the disk for each message, or one for each atomic
batch (nats-server 2.15). So messages of one stream that come while others are on their way are gathered, and leave as a
batch when they are many; few leave one by one, which is then quicker.

What is not acknowledged is sent again, when the connection comes back or nothing was heard for a while, under the
same `Nats-Msg-Id`, so that the broker stores it once. The header `Stoker-Resent` tells the worker to look twice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stoker_gateway.queue.link import Link

log = logging.getLogger("stoker.queue")

RESENT: Final = "Stoker-Resent"
STORED: Final = ""
EXISTS: Final = "exists"
TIMEOUT: Final = "timeout"

Told = Callable[[str], None]
"""Called once: with `STORED`, `EXISTS` (the subject has a message already), `TIMEOUT`, or the broker's own words."""

_TICK: Final = 0.25
_SILENCE: Final = 2.0
_STORED: Final = b'{"stream":'
_STATUS: Final = b"NATS/1.0 "
_RESENT_LINE: Final = f"{RESENT}: 1\r\n".encode()
_FEWEST: Final = 16
"""Messages of a batch: with fewer, its own files cost the broker more than it saves."""
_MOST: Final = 250
_MOST_BYTES: Final = 4 * 1024 * 1024
_BATCHES: Final = 2
"""At a time: while the disk has one, the next is gathered."""
_BATCHES_SINCE: Final = (2, 15)


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Ack(msgspec.Struct, frozen=True):
    error: _Error | None = None
    duplicate: bool = False


_decode_ack = msgspec.json.Decoder(_Ack).decode


class _Message:
    """One that has no acknowledgement yet. `lot` is what it left with."""

    __slots__ = ("done", "expires", "headers", "lot", "payload", "resend_at", "sent", "subject", "token")

    def __init__(self, token: int, subject: bytes, payload: bytes, headers: bytes, done: Told, expires: float) -> None:
        self.token = token
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.done = done
        self.expires = expires
        self.resend_at = math.inf
        self.sent = False
        self.lot: _Lot | None = None


class _Lot:
    """Messages of one stream that left together: as a batch, or as so many single ones."""

    __slots__ = ("left", "messages", "stream")

    def __init__(self, stream: _Stream, messages: list[_Message]) -> None:
        self.stream = stream
        self.messages = messages
        self.left = len(messages)


class _Stream:
    """What waits for one stream."""

    __slots__ = ("lots", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Message] = []
        self.lots = 0


class Publisher:
    """`deadline` is in seconds from `publish`; `most` bounds the bytes that wait for the broker."""

    def __init__(self, link: Link, *, deadline: float = math.inf, most: int = 256 * 1024 * 1024) -> None:
        self._link = link
        self._deadline = deadline
        self._most = most
        self._name = uuid.uuid4().hex.encode()
        self._inbox = b"_INBOX.%b." % self._name
        self._pending: dict[int, _Message] = {}
        self._lots: dict[int, _Lot] = {}  # batches, by the token of their last message
        self._streams: dict[str, _Stream] = {}
        self._count = 0
        self.waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_TICK, self._tick)
        link.subscribe(f"{self._inbox.decode()}*", self._heard)
        link.back.append(self._send_all_again)

    def publish(
        self,
        subject: str,
        payload: bytes,
        done: Told,
        headers: Mapping[str, str] | None = None,
        *,
        stream: str = "",
    ) -> bool:
        """Store a message; `done` is told how it went. False: too much waits for the broker, and nothing is done.

        Messages that name their `stream` may leave in a batch.
        """
        if self.waiting_bytes + len(payload) > self._most:
            return False
        self._count += 1
        token = self._count
        if headers is not None and "Nats-Msg-Id" in headers:
            fields = b""
        else:
            fields = b"Nats-Msg-Id: %b-%d\r\n" % (self._name, token)
        if headers is not None:
            fields += "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode()
        now = self._loop.time()
        message = _Message(token, subject.encode(), payload, fields, done, now + self._deadline)
        self._pending[token] = message
        self.waiting_bytes += len(payload)
        if stream:
            self._gather(stream, message)
        else:
            self._send(message, now)
        return True

    def tell(self, subject: bytes, payload: bytes = b"") -> None:
        """Core NATS: sent once, and lost if the connection is."""
        self._link.publish(subject, payload)

    async def drain(self, seconds: float) -> None:
        """Wait until all that was published is acknowledged and all that was told is read."""
        deadline = self._loop.time() + seconds
        while self._pending and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout_at(deadline):
                await self._link.flush()
        except TimeoutError:
            log.debug("the broker does not answer, and we end")

    def close(self) -> None:
        self._timer.cancel()

    # Sending

    def _gather(self, name: str, message: _Message) -> None:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = _Stream()
        stream.waiting.append(message)
        if len(stream.waiting) == 1 and stream.lots < _BATCHES:
            self._loop.call_soon(self._send_waiting, stream)  # with all that this turn of the loop brings

    def _send_waiting(self, stream: _Stream) -> None:
        now = self._loop.time()
        while stream.waiting and stream.lots < _BATCHES:
            messages = _first_of(stream.waiting)
            del stream.waiting[: len(messages)]
            messages = [message for message in messages if message.token in self._pending]  # some are too late
            if not messages:
                continue
            lot = _Lot(stream, messages)
            stream.lots += 1
            for message in messages:
                message.lot = lot
            if len(messages) < _FEWEST or self._link.relaxed or self._link.version < _BATCHES_SINCE:
                for message in messages:
                    self._send(message, now)
            else:
                self._send_batch(lot, now)

    def _send_batch(self, lot: _Lot, now: float) -> None:
        last = lot.messages[-1]
        self._lots[last.token] = lot
        for number, message in enumerate(lot.messages, 1):
            message.resend_at, message.sent = now + _SILENCE, self._link.connected
            commit, reply = (b"Nats-Batch-Commit: 1\r\n", b"%b%d" % (self._inbox, last.token))
            if message is not last:
                commit, reply = b"", b""
            batch = b"Nats-Batch-Id: %b-%d\r\nNats-Batch-Sequence: %d\r\n" % (self._name[:32], last.token, number)
            head = b"NATS/1.0\r\n%b%b%b\r\n" % (message.headers, batch, commit)
            self._link.publish(message.subject, message.payload, reply, head)

    def _send(self, message: _Message, now: float) -> None:
        message.resend_at, message.sent = now + _SILENCE, self._link.connected
        head = b"NATS/1.0\r\n%b\r\n" % message.headers
        self._link.publish(message.subject, message.payload, b"%b%d" % (self._inbox, message.token), head)

    def _send_again(self, message: _Message, now: float) -> None:
        if message.sent and not message.headers.endswith(_RESENT_LINE):
            message.headers += _RESENT_LINE
        self._send(message, now)

    def _send_all_again(self) -> None:
        """The connection is back: what was sent may be lost, or its acknowledgement. Also what came meanwhile."""
        now = self._loop.time()
        self._lots.clear()  # a batch that was lost is not known any more, and one that was stored is found by its ids
        for message in self._pending.values():
            if message.resend_at < math.inf:
                self._send_again(message, now)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK, self._tick)
        now = self._loop.time()
        for token, message in list(self._pending.items()):
            if message.expires <= now:
                self._finish(token, message, TIMEOUT)
            elif self._link.connected and message.resend_at <= now:
                self._send_again(message, now)

    # Acknowledgements

    def _heard(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        token = int(subject[len(self._inbox) :])
        lot = self._lots.pop(token, None)
        if headers.startswith(_STATUS):  # nobody listens there yet: no stream, or no leader
            messages = lot.messages if lot is not None else [self._pending[token]] if token in self._pending else []
            for message in messages:
                message.resend_at = self._loop.time() + _TICK
        elif lot is not None:
            self._heard_of_batch(lot, payload)
        elif token in self._pending:
            # An acknowledgement, as nearly always.
            self._finish(token, self._pending[token], STORED if payload.startswith(_STORED) else _result(payload))

    def _heard_of_batch(self, lot: _Lot, payload: bytes) -> None:
        if payload.startswith(_STORED):
            for message in lot.messages:
                self._finish(message.token, message, STORED)
        else:  # one of them was refused, and with it all: which, will be seen
            log.debug("a batch of %d is sent one by one: %s", len(lot.messages), payload[:200])
            now = self._loop.time()
            for message in lot.messages:
                if message.token in self._pending:
                    self._send(message, now)

    def _finish(self, token: int, message: _Message, result: str) -> None:
        if self._pending.pop(token, None) is None:
            return
        self.waiting_bytes -= len(message.payload)
        lot, message.lot = message.lot, None
        if lot is not None:
            lot.left -= 1
            if not lot.left:
                lot.stream.lots -= 1
                self._send_waiting(lot.stream)
        message.done(result)


def _first_of(waiting: list[_Message]) -> list[_Message]:
    """As many as a batch takes."""
    size = 0
    for number, message in enumerate(waiting[:_MOST]):
        size += len(message.payload)
        if size > _MOST_BYTES and number:
            return waiting[:number]
    return waiting[:_MOST]


def _result(payload: bytes) -> str:
    try:
        error = _decode_ack(payload).error
    except msgspec.MsgspecError:
        return "an answer that is no acknowledgement"
    if error is None:
        return STORED
    if "per subject" in error.description:
        return EXISTS
    return error.description or f"error {error.code}"
