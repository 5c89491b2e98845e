"""Large bodies pass through a proxy piece by piece: byte for byte, with flat memory, at the pace of the slower side."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from raw_http import BackEnd, RawClient, back_end, engine_loops, serving, until

from stoker_gateway.proxy.proxy import Proxy
from stoker_gateway.routes import Route, Target

PIECE = bytes(range(256)) * 256
PIECES = 1600
SIZE = len(PIECE) * PIECES  # 100 MiB
ROOM = 20_000_000
"""Bytes that the whole test may add to this process, in which client, proxy and back end live."""


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


@asynccontextmanager
async def proxy_to(address: str) -> AsyncIterator[RawClient]:
    proxy = Proxy("unix:/nowhere", lambda key: None, max_body=1 << 40, max_waiting=10)
    proxy.put(Route("f.openfaas-fn", 60.0, 0, [Target("a", address)]))
    async with serving(proxy.handle) as wire:
        yield await wire.client()
    proxy.close()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Memory:
    """The most that this process has held since the beginning."""

    def __init__(self) -> None:
        self._before = resident()
        self.grown = 0

    def look(self) -> None:
        self.grown = max(self.grown, resident() - self._before)


async def pour(writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    for _ in range(PIECES):
        writer.write(piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


async def digest(reader: asyncio.StreamReader, memory: Memory) -> tuple[int, str]:
    """Reads a body, framed by chunks or not, in the dumbest way that keeps nothing."""
    size, hashed = 0, hashlib.sha256()
    while size < SIZE:
        data = await reader.read(min(65536, SIZE - size))
        assert data, size
        hashed.update(data)
        size += len(data)
        memory.look()
    return size, hashed.hexdigest()


async def digest_of_chunks(reader: asyncio.StreamReader, memory: Memory) -> tuple[int, str]:
    size, hashed = 0, hashlib.sha256()
    while length := int(await reader.readuntil(b"\r\n"), 16):
        hashed.update(await reader.readexactly(length))
        await reader.readexactly(2)
        size += length
        memory.look()
    await reader.readexactly(2)
    return size, hashed.hexdigest()


def expected() -> tuple[int, str]:
    hashed = hashlib.sha256()
    for _ in range(PIECES):
        hashed.update(PIECE)
    return SIZE, hashed.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
async def test_100_mb_go_up_and_come_down_in_flat_memory(chunked: bool) -> None:
    received: list[tuple[int, str]] = []
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % SIZE
    reading = digest_of_chunks if chunked else digest

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        received.append(await reading(reader, memory))
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % framing)
        await pour(writer, chunked=chunked)

    async with back_end(script) as back, proxy_to(back.address) as client:
        memory = Memory()
        await client.send(b"POST /function/f HTTP/1.1\r\nHost: x\r\n%b\r\n" % framing)
        await pour(client.writer, chunked=chunked)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reading(client.reader, memory) == expected()
    assert received == [expected()]
    assert memory.grown < ROOM


async def test_a_replica_that_reads_nothing_holds_its_caller_back() -> None:
    read = asyncio.Event()

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read.wait()
        await reader.readuntil(b"\r\n\r\n")
        await digest(reader, Memory())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with back_end(script) as back, proxy_to(back.address) as client:
        await client.send(b"POST /function/f HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE)
        pouring = asyncio.ensure_future(pour(client.writer, chunked=False))
        done, _ = await asyncio.wait([pouring], timeout=0.3)
        assert not done
        read.set()
        assert (await client.answer()).status == 204
        await pouring


async def test_a_client_that_reads_nothing_holds_its_replica_back() -> None:
    poured = 0

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        await back.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(PIECES):
            writer.write(PIECE)
            await writer.drain()
            poured += len(PIECE)

    async with back_end(script) as back, proxy_to(back.address) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: poured, "the beginning of the answer")
        before = -1
        while before != (before := poured):
            await asyncio.sleep(0.05)
        assert poured < SIZE / 2
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.answer()).body) == SIZE
