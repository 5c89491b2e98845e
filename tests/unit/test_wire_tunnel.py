"""A tunnel passes every byte both ways, holds back a fast side, and ends on both sides at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from raw_http import BackEnd, RawClient, back_end, engine_loops, serving, until

from stoker_wire.client import AnswerHead, ClientConnection, Pool
from stoker_wire.exchange import Exchange, Idle
from stoker_wire.message import Field
from stoker_wire.tunnel import Tunnel

UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


class Joiner(Idle):
    """Joins an exchange to a peer, as a proxy does."""

    def __init__(self, exchange: Exchange, pool: Pool, address: str, closed: Callable[[], None]) -> None:
        self._exchange = exchange
        self._closed = closed
        exchange.owner = self
        pool.dial(address, self._dialled)

    def _dialled(self, connection: ClientConnection | None, reason: str) -> None:
        assert connection is not None, reason
        connection.send(self, UPGRADE, upgrades=True)

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        client, from_client = self._exchange.switch(b"")
        Tunnel(client, transport, self._closed).open(from_client, behind)

    def answer(self, head: AnswerHead) -> None: ...
    def data(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def flush_answer(self) -> None: ...
    def broken(self, reason: str, answered: bool) -> None: ...
    def hold_request(self) -> None: ...
    def release_request(self) -> None: ...


class Joined:
    def __init__(self, client: RawClient, ended: list[int]) -> None:
        self.client = client
        self.ended = ended


@asynccontextmanager
async def joined(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], behind: bytes = b""
) -> AsyncIterator[Joined]:
    """A client whose upgrade was accepted by a peer that then runs the script."""

    async def accept(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(SWITCHED + behind)
        await script(reader, writer)  # type: ignore[misc]

    pool = Pool()
    ended: list[int] = []
    async with (
        back_end(accept) as back,
        serving(lambda exchange: Joiner(exchange, pool, back.address, lambda: ended.append(1))) as wire,
    ):
        client = await wire.client()
        await client.send(UPGRADE + b"early;")
        assert (await client.answer()).status == 101
        yield Joined(client, ended)
    pool.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_every_byte_passes_both_ways_also_those_that_came_with_the_heads() -> None:
    async with joined(echo, behind=b"hello;") as tunnel:
        assert await tunnel.client.reader.readexactly(12) == b"hello;early;"
        for frame in (b"\x81\x85mask", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", bytes(range(256))):
            await tunnel.client.send(frame)
            assert await tunnel.client.reader.readexactly(len(frame)) == frame


async def test_a_side_that_reads_nothing_holds_the_other_back() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(400):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with joined(pour) as tunnel:
        tunnel.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while before != (before := sent):
            await asyncio.sleep(0.02)
        assert sent < 25_000_000
        tunnel.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await tunnel.client.rest()) == 40_000_000


async def test_all_that_a_side_sent_before_it_closed_arrives() -> None:
    async def say_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 5_000_000)
        await writer.drain()

    async with joined(say_and_leave) as tunnel:
        assert len(await tunnel.client.rest()) == 5_000_000
        await until(lambda: tunnel.ended, "the end of the tunnel")
        assert tunnel.ended == [1]


@pytest.mark.parametrize("leave", [RawClient.half_close, RawClient.reset])
async def test_a_client_that_leaves_ends_the_peers_side(leave: Callable[[RawClient], None]) -> None:
    left = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        except ConnectionError:
            pass
        left.set()

    async with joined(listen) as tunnel:
        leave(tunnel.client)
        await asyncio.wait_for(left.wait(), 5)
        await until(lambda: tunnel.ended, "the end of the tunnel")
