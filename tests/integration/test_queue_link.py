"""The link against a real nats-server, and against servers that are none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from broker import RunningBroker

from stoker_gateway.queue.link import Link
from stoker_sdk.broker.settings import BrokerSettings


class Ear:
    """What a subscription hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes, bytes, bytes]] = []
        self._news = asyncio.Event()

    def __call__(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self.heard.append((subject, reply, headers, payload))
        self._news.set()

    async def until(self, count: int) -> list[tuple[bytes, bytes, bytes, bytes]]:
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()
        return self.heard


@asynccontextmanager
async def linked(settings: BrokerSettings) -> AsyncIterator[Link]:
    link = Link(settings, "test")
    there = asyncio.Event()
    link.back.append(there.set)
    try:
        async with asyncio.timeout(10):
            await there.wait()
        yield link
    finally:
        link.close()


@asynccontextmanager
async def server_that_says(words: bytes) -> AsyncIterator[BrokerSettings]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield BrokerSettings(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()


async def test_what_is_published_is_heard_byte_for_byte(broker: RunningBroker) -> None:
    async with linked(broker.settings) as link:
        ear = Ear()
        link.subscribe("a.>", ear)
        head = b"NATS/1.0\r\nX: 1\r\n\r\n"
        sent = [
            (b"a.b", b"", b"", b""),
            (b"a.b", b"answer.here", b"", b"MSG a.b 1 3\r\nabc\r\n"),
            (b"a.c", b"", head, bytes(range(256))),
            (b"a.c.d", b"answer.there", head, b"\r\n" * 1000),
        ]
        for subject, reply, headers, payload in sent:
            link.publish(subject, payload, reply, headers)
        assert await ear.until(4) == sent


async def test_a_message_of_many_reads_is_one(broker: RunningBroker) -> None:
    async with linked(broker.settings) as link:
        ear = Ear()
        link.subscribe("large", ear)
        for size in (15 * 1024 * 1024, 1, 70_000):
            link.publish(b"large", b"x" * size)
        assert [len(payload) for *_, payload in await ear.until(3)] == [15 * 1024 * 1024, 1, 70_000]


def test_every_split_of_what_a_server_sends_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """No server: the bytes are given to the protocol itself."""
    stream = b"MSG a 1 3\r\nabc\r\nPING\r\nHMSG b 1 r 12 14\r\nNATS/1.0\r\n\r\nde\r\n+OK\r\nMSG a 1 r 0\r\n\r\n"

    async def hear(cut: int) -> list[tuple[bytes, bytes, bytes, bytes]]:
        link = Link(BrokerSettings("nats://127.0.0.1:1"), "test")
        ear = Ear()
        link.subscribe("a", ear)
        for piece in (stream[:cut], stream[cut : cut + 5], stream[cut + 5 :]):
            link.data_received(piece)
        link.close()
        return ear.heard

    wanted = [(b"a", b"", b"", b"abc"), (b"b", b"r", b"NATS/1.0\r\n\r\n", b"de"), (b"a", b"r", b"", b"")]
    for cut in range(len(stream)):
        assert asyncio.run(hear(cut)) == wanted, cut


async def test_a_listener_that_fails_ends_nothing(broker: RunningBroker, caplog: pytest.LogCaptureFixture) -> None:
    async with linked(broker.settings) as link:
        ear = Ear()

        def fail(*_: bytes) -> None:
            raise ValueError("on purpose")

        link.subscribe("bad", fail)
        link.subscribe("good", ear)
        link.publish(b"bad", b"")
        link.publish(b"good", b"")
        await ear.until(1)
        assert "on purpose" in caplog.text


async def test_it_comes_back_with_its_subscriptions(broker: RunningBroker) -> None:
    async with linked(broker.settings) as link:
        ear = Ear()
        link.subscribe("a", ear)
        await link.flush()
        back = asyncio.Event()
        link.back.append(back.set)
        broker.kill()
        broker.start()
        async with asyncio.timeout(20):
            await back.wait()
        link.publish(b"a", b"again")
        assert (await ear.until(1))[0][3] == b"again"


async def test_refused_credentials_are_said_once_and_without_them(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    link = Link(BrokerSettings(broker.settings.url, token="not-this-one"), "test")
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(20):
            while "Authorization Violation" not in caplog.text:
                await asyncio.sleep(0.01)
    assert not link.connected
    assert "not-this-one" not in caplog.text
    assert caplog.text.count("Authorization Violation") == 1
    link.close()


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO {nonsense\r\n",
        b"x" * 100_000,
        b'INFO {"version": 7}\r\n',
        b"INFO {}\r\nMSG a one 3\r\n",
        b"INFO {}\r\nMSG a 99 3\r\nabc\r\n",
    ],
)
async def test_a_server_that_is_none_is_told_and_tried_again(words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with server_that_says(words) as settings:
        link = Link(settings, "test")
        async with asyncio.timeout(20):
            while "the broker at nats://" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not link.connected
        assert "Traceback" not in caplog.text
        link.close()
