"""Every request that two parsers could read differently is refused, once, and its connection is closed."""

from __future__ import annotations

import asyncio

import pytest
from raw_http import Gather, RawAnswer, engine_loops, read_answer, serving
from refused_requests import CHUNKED, GET, POST, REFUSED_BODIES, REFUSED_HEADS

from stoker_wire.exchange import Exchange


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


async def only_answer(data: bytes) -> RawAnswer:
    """The one answer in these bytes; fails if there are more or fewer."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    answer = await read_answer(reader)
    assert answer.whole and reader.at_eof(), data
    return answer


@pytest.mark.parametrize("name", REFUSED_HEADS)
async def test_a_bad_head_is_refused_before_any_handler_sees_it(name: str) -> None:
    status, request = REFUSED_HEADS[name]
    seen: list[Exchange] = []
    async with serving(seen.append) as wire:
        answer = await only_answer(await wire.talk(request))
    assert answer.status == status
    assert answer["Connection"] == "close" and answer["X-Stoker-Error"].startswith("client")
    assert not seen


@pytest.mark.parametrize("name", REFUSED_BODIES)
async def test_a_bad_body_is_refused_and_its_owner_is_told_that_the_request_is_gone(name: str) -> None:
    owners: list[Gather] = []
    async with serving(lambda exchange: owners.append(Gather(exchange))) as wire:
        answer = await only_answer(await wire.talk(REFUSED_BODIES[name]))
    assert answer.status == 400 and answer["Connection"] == "close"
    assert [owner.events for owner in owners] == [["gone"]]


@pytest.mark.parametrize("name", [name for name, (_, data) in REFUSED_HEADS.items() if len(data) < 300])
async def test_a_bad_head_that_comes_byte_by_byte_is_refused_as_well(name: str) -> None:
    status, request = REFUSED_HEADS[name]
    async with serving(Gather) as wire:
        client = await wire.client()
        try:
            await client.send(*(bytes([byte]) for byte in request))
        except ConnectionError:
            pass  # refused before its end
        answer = await only_answer(await client.rest())
    assert answer.status == status


async def test_a_bad_request_behind_a_good_one_is_refused_after_the_good_one_is_answered() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as wire:
        client = await wire.client()
        await client.send(GET + b"\r\n" + GET + b"A : b\r\n\r\n" + GET + b"\r\n")
        while not waiting:
            await asyncio.sleep(0)
        waiting[0].respond(200, b"", b"first")
        assert (await client.answer()).body == b"first"
        assert (await only_answer(await client.rest())).status == 400
    assert len(waiting) == 1


async def test_a_bad_body_behind_an_early_answer_is_not_answered_again() -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(404, b"", b"unknown")

    async with serving(refuse) as wire:
        answer = await only_answer(await wire.talk(CHUNKED + b"zz\r\n" + GET + b"\r\n"))
    assert answer.status == 404 and answer["Connection"] == "close"


async def test_a_request_behind_one_that_closes_is_never_begun() -> None:
    seen: list[bytes] = []

    def answer(exchange: Exchange) -> None:
        seen.append(exchange.target)
        exchange.respond(200, b"", b"")

    async with serving(answer) as wire:
        for first in (
            GET + b"Connection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
            CHUNKED + b"0\r\n\r\n",
            POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
        ):
            seen.clear()
            talk = await wire.talk(first + b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await only_answer(talk)).status == 200
            assert seen == [b"/"]


@pytest.mark.parametrize(
    "request_head",
    [b"HEAD / HTTP/1.1\r\nA : b\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n", CHUNKED.replace(b"POST", b"HEAD") + b"z"],
)
async def test_the_refusal_of_a_head_request_has_no_body(request_head: bytes) -> None:
    async with serving(Gather) as wire:
        client = await wire.client()
        answer = await client.ask(request_head, head_only=True)
        assert answer.status == 400 and int(answer["Content-Length"]) > 0
        assert await client.rest() == b""
        await client.close()


async def test_what_is_no_request_behind_a_head_request_is_refused_with_a_body() -> None:
    async with serving(Gather) as wire:
        client = await wire.client()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nx y z")
        assert (await client.answer(head_only=True)).status == 200
        assert (await only_answer(await client.rest())).status == 400


async def test_a_good_head_just_within_the_limits_passes() -> None:
    head = b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 65_000 + b"\r\n\r\n"
    async with serving(Gather) as wire:
        assert (await wire.ask(head)).status == 200


@pytest.mark.parametrize(
    "endless", [b"5;a=" + b"b" * 400_000, b"0\r\nA: " + b"b" * 400_000, b"0\r\n" + b"Aaaa: bbbb\r\n" * 7_000]
)
async def test_endless_chunk_extensions_and_trailers_are_refused(endless: bytes) -> None:
    owners: list[Gather] = []
    async with serving(lambda exchange: owners.append(Gather(exchange))) as wire:
        answer = await only_answer(await wire.talk(CHUNKED + endless))
    assert answer.status == 431
    assert owners[0].events == ["gone"]


async def test_a_body_that_is_sent_in_the_smallest_chunks_is_no_attack() -> None:
    async with serving(Gather) as wire:
        answer = await wire.ask(CHUNKED + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
    assert answer.body == b"x" * 50_000
