"""Receivers that misbehave, and TLS: each is a reason, within its time, and harms nobody else."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from callback_receiver import raw_receiver, receiver
from raw_http import until
from yarl import URL

from stoker_gateway.queue.addresses import Guard
from stoker_gateway.queue.callback_request import Callback
from stoker_gateway.queue.callbacks import Callbacks, Delivery, Times, redirected
from stoker_gateway.tls import ensure_certificates
from stoker_sdk.errors import BadInput

HURRIED = Times(attempts=2, first=0.01, most=0.01, answer=0.3, rate=1e9)


@pytest.fixture
def laptop() -> Iterator[Guard]:
    guard = Guard(private_allowed=True, resolver=lambda host: ["127.0.0.1"])
    yield guard
    guard.close()


async def deliver(guard: Guard, url: str, body: bytes = b"", tls: ssl.SSLContext | None = None) -> Delivery:
    async with Callbacks(guard, times=HURRIED, tls=tls) as callbacks:
        return await callbacks.deliver(Callback(url, "call-1", "greet", 200, 0.1, (), body))


async def read_head(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def test_one_that_never_answers_is_left(laptop: Guard) -> None:
    connections: list[int] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.read()

    async with raw_receiver(silent) as hooks:
        begun = time.monotonic()
        delivery = await deliver(laptop, hooks.url())
    assert (delivery.delivered, delivery.attempts, len(connections)) == (False, 2, 2)
    assert "did not answer within 0.3 s" in delivery.reason
    assert 0.6 <= time.monotonic() - begun < 3


async def test_one_that_does_not_read_the_body_is_left(laptop: Guard) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with raw_receiver(deaf) as hooks:
        begun = time.monotonic()
        delivery = await deliver(laptop, hooks.url(), b"x" * 10_000_000)
    assert not delivery.delivered
    assert "did not answer within" in delivery.reason
    assert time.monotonic() - begun < 3


async def test_what_is_secret_in_a_url_stands_in_no_reason(laptop: Guard) -> None:
    async with receiver(404, 503, 503, (307, {"Location": "ftp://a.example/"})) as hooks:
        deliveries = [await deliver(laptop, hooks.url("/s3cret?token=s3cret")) for _ in range(3)]
    assert not any(each.delivered or "s3cret" in each.reason for each in deliveries)
    assert all(each.reason for each in deliveries)


async def test_one_that_drips_its_head_is_left(laptop: Guard) -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw_receiver(dripping) as hooks:
        delivery = await deliver(laptop, hooks.url())
    assert not delivery.delivered
    assert "did not answer within" in delivery.reason


async def test_an_endless_answer_is_cut_off(laptop: Guard) -> None:
    sent: list[int] = []
    cut = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                sent.append(65536)
                await writer.drain()
        except ConnectionError:
            cut.set()

    async with raw_receiver(endless) as hooks:
        delivery = await deliver(laptop, hooks.url())
        await until(cut.is_set, "the connection to be cut")
    assert (delivery.delivered, delivery.status) == (True, 200)
    assert sum(sent) < 50_000_000


async def test_an_answer_whose_body_never_comes_counts_by_its_status(laptop: Guard) -> None:
    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await reader.read()

    async with raw_receiver(stalled) as hooks:
        delivery = await deliver(laptop, hooks.url())
    assert (delivery.delivered, delivery.attempts, delivery.status) == (True, 1, 200)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"\x16\x03\x01\x00\x05",
    ],
    ids=["nothing", "smtp", "garbage", "long-header", "many-headers", "tls"],
)
async def test_what_is_no_http_is_a_reason(answer: bytes, laptop: Guard) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with raw_receiver(broken) as hooks:
        delivery = await deliver(laptop, hooks.url())
    assert (delivery.delivered, delivery.attempts) == (False, 2)
    assert delivery.reason
    assert len(delivery.reason) < 400


async def test_a_flood_of_interim_answers_ends_with_the_time(laptop: Guard) -> None:
    async def continuing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_receiver(continuing) as hooks:
        delivery = await deliver(laptop, hooks.url())
    assert not delivery.delivered


async def test_an_answer_before_the_body_was_read_is_taken(laptop: Guard) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with raw_receiver(early) as hooks:
        delivery = await deliver(laptop, hooks.url(), b"x" * 10_000_000)
    assert (delivery.delivered, delivery.status, delivery.attempts) == (False, 413, 1)


async def test_certificates_are_checked_against_the_name_in_the_url(laptop: Guard, tmp_path: Path) -> None:
    made = ensure_certificates(tmp_path, ["hooks.example"])
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(made.chain, made.key)
    trusting = ssl.create_default_context(cafile=str(made.ca))
    async with receiver(tls=server_side) as hooks:
        assert (await deliver(laptop, hooks.url(host="hooks.example"), tls=trusting)).delivered
        other = await deliver(laptop, hooks.url(host="other.example"), tls=trusting)
        stranger = await deliver(laptop, hooks.url(host="hooks.example"))
    assert "certificate" in other.reason.lower()
    assert "certificate" in stranger.reason.lower()
    assert len(hooks.got) == 1


def test_a_redirect_from_https_to_http_is_refused() -> None:
    url = URL("https://a.example/x")
    assert str(redirected(url, "../y")) == "https://a.example/y"
    assert str(redirected(url, "//b.example/%2F")) == "https://b.example/%2F"
    with pytest.raises(BadInput, match="in the clear"):
        redirected(url, "http://a.example/x")
