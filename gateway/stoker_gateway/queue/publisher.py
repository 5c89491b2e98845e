"""Publishing to JetStream with many messages in flight: one loop that sends, acknowledgements matched by a token.

What is not acknowledged is sent again, when the connection comes back or nothing was heard for a while, under the
same `Nats-Msg-Id`, so that the broker stores it once. The header `Stoker-Resent` tells the worker to look twice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.queue")

RESENT: Final = "Stoker-Resent"
STORED: Final = ""
EXISTS: Final = "exists"
TIMEOUT: Final = "timeout"

Done = Callable[[str], None]
"""Called once: with `STORED`, `EXISTS` (the subject has a message already), `TIMEOUT`, or the broker's own words."""

_TICK = 0.25
_SILENCE = 2.0
_STORED: Final = b'{"stream":'


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Ack(msgspec.Struct, frozen=True):
    error: _Error | None = None
    duplicate: bool = False


_decode_ack = msgspec.json.Decoder(_Ack).decode


class _Message:
    __slots__ = ("done", "expires", "headers", "payload", "resend_at", "subject")

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str], done: Done, expires: float) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.done = done
        self.expires = expires
        self.resend_at = math.inf


class Publisher:
    """`deadline` is in seconds from `publish`; `most` bounds the bytes that wait for the broker."""

    def __init__(self, *, deadline: float = math.inf, most: int = 256 * 1024 * 1024) -> None:
        self._deadline = deadline
        self._most = most
        self._client: Client | None = None
        self._name = uuid.uuid4().hex
        self._inbox = f"_INBOX.{self._name}"
        self._pending: dict[str, _Message] = {}
        self._outgoing: deque[tuple[str, bytes] | str] = deque()
        self._wake = asyncio.Event()
        self._count = 0
        self.waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_TICK, self._tick)
        self._sending = self._loop.create_task(self._send_all(), name="publisher")

    async def start(self, client: Client) -> None:
        """Use this connection; what was published before is sent now."""
        await client.subscribe(f"{self._inbox}.*", cb=self._heard, pending_msgs_limit=-1)
        self._client = client
        self._wake.set()

    def publish(self, subject: str, payload: bytes, done: Done, headers: Mapping[str, str] | None = None) -> bool:
        """Store a message; `done` is told how it went. False: too much waits for the broker, and nothing is done."""
        if self.waiting_bytes + len(payload) > self._most:
            return False
        self._count += 1
        token = str(self._count)
        fields = {"Nats-Msg-Id": f"{self._name}-{token}"}
        if headers is not None:
            fields |= headers
        self._pending[token] = _Message(subject, payload, fields, done, self._loop.time() + self._deadline)
        self.waiting_bytes += len(payload)
        self._outgoing.append(token)
        self._wake.set()
        return True

    def tell(self, subject: str, payload: bytes = b"") -> None:
        """Core NATS: sent once, and lost if the connection is."""
        self._outgoing.append((subject, payload))
        self._wake.set()

    async def reconnected(self) -> None:
        """The connection is back: what was sent may be lost, or its acknowledgement."""
        for token, message in self._pending.items():
            if message.resend_at < math.inf:
                self._send_again(token, message)

    async def drain(self, seconds: float) -> None:
        """Wait until all that was published is acknowledged and all that was told is sent."""
        deadline = self._loop.time() + seconds
        while (self._pending or (self._outgoing and self._connected)) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        if self._client is not None and self._connected:
            await self._client.flush()

    @property
    def _connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    def close(self) -> None:
        self._timer.cancel()
        self._sending.cancel()

    def _send_again(self, token: str, message: _Message) -> None:
        message.headers[RESENT] = "1"
        message.resend_at = math.inf
        self._outgoing.append(token)
        self._wake.set()

    async def _send_all(self) -> None:
        while True:
            client = self._client
            if client is None or not client.is_connected or not self._outgoing:
                self._wake.clear()
                await self._wake.wait()  # the tick wakes too
                continue
            try:
                await self._send(client, self._outgoing.popleft())
            except Exception as error:  # the client has many; whatever it was, it is sent again
                log.debug("publish: %r", error)

    async def _send(self, client: Client, item: tuple[str, bytes] | str) -> None:
        if isinstance(item, tuple):
            await client.publish(*item)
        elif (message := self._pending.get(item)) is not None:
            message.resend_at = self._loop.time() + _SILENCE
            reply = f"{self._inbox}.{item}"
            await client.publish(message.subject, message.payload, reply=reply, headers=message.headers)

    async def _heard(self, answer: Any) -> None:
        token = answer.subject.rpartition(".")[2]
        message = self._pending.get(token)
        if message is None:
            return
        if answer.headers is not None and answer.headers.get("Status"):
            message.resend_at = self._loop.time() + _TICK  # nobody listens there yet: no stream, or no leader
            return
        if answer.data.startswith(_STORED):  # an acknowledgement, as nearly always
            self._finish(token, message, STORED)
            return
        try:
            error = _decode_ack(answer.data).error
        except msgspec.MsgspecError:
            error = _Error(0, "an answer that is no acknowledgement")
        self._finish(token, message, _result(error))

    def _finish(self, token: str, message: _Message, result: str) -> None:
        if self._pending.pop(token, None) is not None:
            self.waiting_bytes -= len(message.payload)
            message.done(result)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK, self._tick)
        now = self._loop.time()
        connected = self._connected
        for token, message in list(self._pending.items()):
            if message.expires <= now:
                self._finish(token, message, TIMEOUT)
            elif connected and message.resend_at <= now:
                self._send_again(token, message)
        if self._outgoing:
            self._wake.set()


def _result(error: _Error | None) -> str:
    if error is None:
        return STORED
    if "per subject" in error.description:
        return EXISTS
    return error.description or f"error {error.code}"
