"""Every wait of a connection has a limit, and what a slow client does harms nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from raw_http import PLAIN, Gather, engine_loops, serving, until

from stoker_wire.exchange import Exchange
from stoker_wire.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"

LONG = Limits()
"""No limit is met in a test, but for the one that it shortens."""


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


def respond_target(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, exchange.target)


async def test_a_connection_without_a_request_is_closed_after_the_idle_time() -> None:
    async with serving(Gather, replace(LONG, idle=0.05)) as wire:
        fresh, used = await wire.client(), await wire.client()
        await used.ask(GET + b"\r\n")
        assert await fresh.rest() == await used.rest() == b""


@pytest.mark.parametrize("first", [b"", GET + b"\r\n"])
async def test_a_head_that_does_not_end_is_refused_with_408(first: bytes) -> None:
    async with serving(Gather, replace(LONG, header_wait=0.05)) as wire:
        client = await wire.client()
        await client.send(first + GET[:20])
        if first:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert answer.status == 408 and answer["Connection"] == "close"
        assert await client.rest() == b""


async def test_a_head_that_drips_in_is_refused_all_the_same() -> None:
    async with serving(Gather, replace(LONG, header_wait=0.1)) as wire:
        client = await wire.client()

        async def drip() -> None:
            await client.send(GET)
            while True:
                await client.send(b"A: b\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert (await client.answer()).status == 408
        dripping.cancel()


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_does_not_come_is_refused_with_408_and_its_owner_told(framing: bytes) -> None:
    owners: list[Gather] = []
    async with serving(lambda exchange: owners.append(Gather(exchange)), replace(LONG, body_wait=0.05)) as wire:
        answer = await wire.ask(POST + framing + b"\r\n")
        assert answer.status == 408 and owners[0].events == ["gone"]


async def test_a_body_that_is_held_or_not_asked_for_is_not_missed() -> None:
    held: list[Gather] = []

    def take(exchange: Exchange) -> None:
        owner = Gather.__new__(Gather)
        owner.__dict__.update(exchange=exchange, data=b"", events=[], _answer=lambda e, body: e.respond(200, b"", body))
        exchange.owner = owner
        if not exchange.expects_continue:
            exchange.hold_body()
        held.append(owner)

    async with serving(take, replace(LONG, body_wait=0.03)) as wire:
        for expect in (b"", b"Expect: 100-continue\r\n"):
            client = await wire.client()
            await client.send(POST + expect + b"Content-Length: 5\r\n\r\n")
            done, _ = await asyncio.wait([reading := asyncio.ensure_future(client.answer())], timeout=0.15)
            assert not done
            exchange = held[-1].exchange
            exchange.accept_body()
            exchange.release_body()
            await client.send(b"hello")
            answer = await reading
            if expect:
                assert answer.status == 100
                answer = await client.answer()
            assert answer.body == b"hello"


async def test_the_rest_of_a_body_behind_its_answer_is_not_waited_for_forever() -> None:
    async with serving(respond_target, replace(LONG, body_wait=0.05, linger=0.05)) as wire:
        client = await wire.client()
        assert (await client.ask(POST + b"Content-Length: 9\r\n\r\nhel")).status == 200
        assert await client.rest() == b""
        await until(lambda: not wire.server.connections, "the end of the connection")


async def test_a_client_that_does_not_close_behind_an_early_answer_is_closed() -> None:
    async with serving(respond_target, replace(LONG, linger=0.05)) as wire:
        client = await wire.client()
        assert (await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n")).status == 200
        assert await client.rest() == b""
        await until(lambda: not wire.server.connections, "the end of the connection")


@pytest.mark.parametrize(
    "request_head",
    [
        GET + b"\r\n",
        GET + b"Connection: close\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
async def test_a_client_that_takes_nothing_is_given_up(request_head: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(200, b"", b"x" * 20_000_000)

    limits = replace(LONG, stalled_write=0.1, linger=0.02, idle=0.02)
    async with serving(answer, limits) as wire:
        client = await wire.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request_head)
        await until(lambda: wire.server.connections, "the connection")
        await until(lambda: not wire.server.connections, "the end of the connection")


async def test_a_client_that_reads_slowly_gets_all_of_an_early_answer_however_long_it_takes() -> None:
    body = bytes(range(256)) * 40_000

    def answer(exchange: Exchange) -> None:
        exchange.respond(200, b"", body)

    limits = replace(LONG, linger=0.02, idle=0.02, body_wait=0.02)
    async with serving(answer, limits) as wire:
        for head in (GET + b"\r\n", GET + b"Connection: close\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n"):
            client = await wire.client()
            await client.send(head)
            await client.reader.readuntil(b"\r\n\r\n")
            got = b""
            while len(got) < len(body):
                got += await client.reader.read(1_000_000)
                await asyncio.sleep(0.005)
            assert got == body


async def test_an_answer_that_takes_its_time_is_not_cut_off() -> None:
    parked: list[Exchange] = []
    every = 0.02
    limits = replace(LONG, header_wait=every, idle=every, body_wait=every, stalled_write=every, linger=every)
    async with serving(parked.append, limits) as wire:
        client = await wire.client()
        await client.send(GET + b"\r\n")
        await until(lambda: parked, "the request")
        await asyncio.sleep(0.2)
        parked[0].respond(200, b"", b"at last")
        assert (await client.answer()).body == b"at last"


async def test_slow_heads_and_idle_connections_leave_others_unharmed() -> None:
    async with serving(respond_target) as wire:
        clients = [await wire.client() for _ in range(200)]
        for client in clients[:100]:
            await client.send(GET[:20])
        began = asyncio.get_running_loop().time()
        for _ in range(100):
            assert (await wire.ask(GET + b"\r\n")).status == 200
        assert asyncio.get_running_loop().time() - began < 2
        for client in clients[:100]:
            await client.send(GET[20:] + b"\r\n")
            assert (await client.answer()).status == 200
