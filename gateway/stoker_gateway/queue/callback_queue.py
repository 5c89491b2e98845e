"""Callbacks on their way: stored when their call ends, delivered by whichever worker takes them.

A callback is stored before the outcome of its call, so that no kill can lose it: at least once, then. A call that runs
again because a worker was killed stores the same callback again, which the broker takes for the first one for as long
as that waits, and for two minutes after.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.queue.callback_request import Callback
from stoker_gateway.queue.counters import DELIVERED, FAILED
from stoker_gateway.queue.subjects import CALLBACKS, key_and_id
from stoker_sdk.errors import Unavailable
from stoker_sdk.messages import CallbackStatus
from stoker_sdk.units import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from stoker_gateway.queue.callback_client import Gates
    from stoker_gateway.queue.callbacks import Callbacks, Delivery, Tried

log = logging.getLogger("stoker.callbacks")

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of an answer that a callback carries; a longer one is cut, and its header `X-Stoker-Truncated` says so."""
_MOST: Final = 500
WAITING: Final = "waiting"
_MOST_OF_ONE: Final = 100
"""Of one receiver. More wait for a moment, and go back to the broker if it is slow, so that they hold up nobody."""
_PATIENCE: Final = 2.0
_SLOW_SECONDS: Final = 30.0
_ALIVE_SECONDS: Final = 10.0
_TELL_SECONDS: Final = 5.0
_CONSUMER: Final = "callbacks"
_FILTER: Final = "stoker.callback.*.*.*"


class StoredCallback(msgspec.Struct, frozen=True):
    """The first line of a message; the answer's body follows it. `fields` are header names and values, in latin-1."""

    url: str
    call_id: str
    function: str
    status: int
    seconds: float
    fields: list[tuple[str, str]] = []


def encode(callback: Callback, body: bytes) -> bytes:
    stored = StoredCallback(
        callback.url,
        callback.call_id,
        callback.function,
        callback.status,
        callback.seconds,
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in callback.fields],
    )
    return msgspec.json.encode(stored) + b"\n" + body


def decode(payload: bytes) -> Callback:
    """Raises `msgspec.MsgspecError`, `UnicodeDecodeError` for what is none of ours."""
    line, _, body = payload.partition(b"\n")
    stored = msgspec.json.decode(line, type=StoredCallback)
    fields = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in stored.fields]
    return Callback(stored.url, stored.call_id, stored.function, stored.status, stored.seconds, fields, body)


class CallbackQueue:
    """Takes stored callbacks and delivers them, so many at a time. `secret` signs them, if there is one.

    `ended` is told of each that is over: its function's key, and whether it was delivered.
    `make` is called when the first one comes: most platforms never see one, and its HTTP client takes 13 MB. It also
    gives what is to be called at the end.
    """

    def __init__(
        self,
        client: Client,
        make: Callable[[], tuple[Callbacks, Callable[[], None]]],
        secret: bytes | None,
        ended: Callable[[str, bool], None] = lambda key, delivered: None,
    ) -> None:
        self._client = client
        self._make = make
        self._callbacks: Callbacks | None = None
        self._close: Callable[[], None] = lambda: None
        self._secret = secret
        self._ended = ended
        self._running: set[asyncio.Task[None]] = set()
        self._gates: Gates | None = None
        self._slow: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled; what is under way is then handed back to the broker."""
        try:
            while True:
                try:
                    await self._take()
                except Exception as error:  # the broker is away, or being started again
                    log.debug("callbacks wait: %r", error)
                    await asyncio.sleep(1)
        finally:
            for task in self._running:
                task.cancel()
            if self._callbacks is not None:
                await self._callbacks.close()
            self._close()

    async def _take(self) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig

        config = ConsumerConfig(
            durable_name=_CONSUMER,
            filter_subject=_FILTER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=3 * _ALIVE_SECONDS,
            max_deliver=-1,
            max_ack_pending=100_000,  # those that were handed back count
        )
        stream = self._client.jetstream()
        await stream.add_consumer(CALLBACKS, config)
        pulls = await stream.pull_subscribe_bind(_CONSUMER, CALLBACKS)
        while True:
            if len(self._running) >= _MOST:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                continue
            for message in await _fetch(pulls, min(100, _MOST - len(self._running))):
                task = asyncio.get_running_loop().create_task(self._deliver(message), name=message.subject)
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _deliver(self, message: Msg) -> None:
        try:
            callback = decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("the callback %s cannot be read and is dropped: %s", message.subject[:200], error)
            await message.term()
            return
        subject = message.subject.replace("stoker.callback.", "stoker.delivery.", 1)
        try:
            delivery = await self._in_its_turn(message, callback, subject)
        except asyncio.CancelledError:
            await message.nak()
            raise
        if delivery is None:
            await message.nak(_pause(message.metadata.num_delivered))
            return
        if not delivery.delivered:
            log.warning(
                "the callback of call %s of %s is given up after %d attempts: %s",
                callback.call_id,
                callback.function,
                delivery.attempts,
                delivery.reason,
            )
        named = key_and_id(message.subject)
        self._ended(str(named[0]) if named else callback.function, delivery.delivered)
        await self._tell_end(subject, delivery)
        await message.ack()

    async def _tell_end(self, subject: str, delivery: Delivery) -> None:
        """Before the callback leaves the queue, so that there is always something to tell."""
        from nats.errors import Error

        now = format_rfc3339(time.time_ns())
        state = DELIVERED if delivery.delivered else FAILED
        status = CallbackStatus(state, delivery.attempts, "", now, delivery.status, delivery.reason)
        try:
            await self._client.request(subject, msgspec.json.encode(status), timeout=_TELL_SECONDS)
        except (Error, TimeoutError) as error:
            log.warning("what became of a callback is not stored (%s): %s", subject, error or "timeout")

    async def _in_its_turn(self, message: Msg, callback: Callback, subject: str) -> Delivery | None:
        """None while too many others wait for the same receiver: these would leave no room for anybody else's."""
        if self._callbacks is None or self._gates is None:
            from stoker_gateway.queue.callback_client import Gates

            self._callbacks, self._close = self._make()
            self._gates = Gates(_MOST, _MOST_OF_ONE)

        async def waits(attempt: int, tried: Tried, pause: float) -> None:
            next_at = format_rfc3339(time.time_ns() + int(pause * 1e9))
            status = CallbackStatus(WAITING, attempt, next_at, status=tried.status, reason=tried.reason)
            await self._client.publish(subject, msgspec.json.encode(status))  # if it is lost, so is only what is told

        receiver = "/".join(callback.url.split("/", 3)[:3])
        now = asyncio.get_running_loop().time()
        try:
            async with self._gates.enter(receiver, 0 if self._slow.get(receiver, 0) > now else _PATIENCE):
                alive = asyncio.get_running_loop().create_task(_say_alive(message))
                try:
                    return await self._callbacks.deliver(callback, self._secret, waits)
                finally:
                    alive.cancel()
        except Unavailable:
            self._slow = {one: until for one, until in self._slow.items() if until > now}
            self._slow[receiver] = now + _SLOW_SECONDS
            return None


def _pause(deliveries: int) -> float:
    """Seconds until a callback whose receiver is slow is looked at again."""
    return random.uniform(0.5, 1.0) * min(60, 2.0 ** min(deliveries, 6))


async def _fetch(pulls: object, number: int) -> list[Msg]:
    try:
        messages: list[Msg] = await pulls.fetch(number, timeout=5)  # type: ignore[attr-defined]
    except TimeoutError:
        return []
    return messages


async def _say_alive(message: Msg) -> None:
    while True:
        await asyncio.sleep(_ALIVE_SECONDS)
        await message.in_progress()
