"""The server side of the engine: framing, order, keep-alive, upgrades, back-pressure."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from raw_http import PLAIN, Gather, RawClient, Wire, engine_loops, serving, until

from stoker_gateway.tls import ensure_certificates
from stoker_wire.exchange import CHUNKED, Exchange, Idle
from stoker_wire.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
HELLO = POST + b"Content-Length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


@pytest.fixture
async def echo() -> AsyncIterator[Wire]:
    """Answers with the body that it got."""
    async with serving(Gather) as wire:
        yield wire


def respond_target(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, exchange.target)


class Parked:
    """A handler that answers nothing by itself: tests do."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    async def get(self, number: int = 0) -> Exchange:
        await until(lambda: len(self.exchanges) > number, "an exchange")
        return self.exchanges[number]


# What a handler sees


async def test_path_query_and_headers_are_seen_as_received() -> None:
    seen: list[Exchange] = []

    def take(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(204, b"", b"")

    async with serving(take) as wire:
        target = b"/a//b/../c%2Fd%00?q=%20&x=/y?z;{|}"
        await wire.ask(b"PATCH %b HTTP/1.1\r\nhOsT: ex_ample.org:80\r\nX-A:  b c \t\r\nX-a: \xff\r\n\r\n" % target)
    exchange = seen[0]
    assert (exchange.method, exchange.target, exchange.host) == (b"PATCH", target, b"ex_ample.org:80")
    assert [(name, value.strip()) for name, value in exchange.fields] == [(b"X-A", b"b c"), (b"X-a", b"\xff")]
    assert exchange.peer == b"127.0.0.1" and not exchange.secure and exchange.length == 0


async def test_hop_by_hop_headers_and_those_that_connection_names_are_not_seen() -> None:
    seen: list[Exchange] = []

    def take(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(204, b"", b"")

    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: 5\r\nTE: x\r\nTrailer: A\r\n"
        b"Proxy-Connection: close\r\nProxy-Authorization: x\r\nProxy-Authenticate: y\r\nx-sEcret: 1\r\nX-Kept: 2\r\n"
        b"Connection: x-other\r\nX-Other: 3\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n"
    )
    async with serving(take) as wire:
        await wire.ask(head)
    assert seen[0].fields == [(b"X-Kept", b"2")]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://y:81/a?b", b"/a?b"),
        (b"HTTPS://y:81", b"/"),
        (b"http://y:81?b=/c", b"/?b=/c"),
        (b"http://y:81//a/../b", b"//a/../b"),
    ],
)
async def test_a_url_as_target_gives_path_and_host_whatever_the_host_header_says(target: bytes, path: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(200, PLAIN, exchange.host + b" " + exchange.target)

    async with serving(answer) as wire:
        assert (await wire.ask(b"GET %b HTTP/1.1\r\nHost: other\r\n\r\n" % target)).body == b"y:81 " + path


async def test_options_of_the_whole_server_has_a_path() -> None:
    async with serving(respond_target) as wire:
        assert (await wire.ask(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"/*"


# Bodies in


async def test_a_body_comes_in_whatever_pieces_it_was_sent(echo: Wire) -> None:
    client = await echo.client()
    for request in (HELLO, POST + b"Transfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n003\r\nllo\r\n0\r\nT: 1\r\n\r\n"):
        await client.send(request)
        assert (await client.answer()).body == b"hello"
        await client.send(*(bytes([byte]) for byte in request))
        assert (await client.answer()).body == b"hello"


async def test_trailers_are_dropped_and_do_not_become_headers_of_the_next_request() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    def take(exchange: Exchange) -> None:
        seen.append(exchange.fields)
        Gather(exchange)

    async with serving(take) as wire:
        client = await wire.client()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\nHost: y\r\n\r\n" + GET + b"\r\n")
        assert [(await client.answer()).status, (await client.answer()).status] == [200, 200]
    assert seen == [[], []]


async def test_a_random_body_of_5_mb_comes_back_byte_for_byte(echo: Wire) -> None:
    body = random.Random(5).randbytes(5_000_000)
    client = await echo.client()
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    sending = asyncio.ensure_future(client.send(head + body))
    assert (await client.answer()).body == body
    await sending


async def test_a_client_that_waits_for_100_continue_gets_it_when_the_body_is_wanted() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(POST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
        exchange = await handler.get()
        owner = Gather(exchange)
        assert (await client.answer()).status == 100
        await client.send(b"hello")
        assert (await client.answer()).body == b"hello" and owner.events == ["end"]


async def test_a_body_that_is_refused_before_it_was_sent_is_not_waited_for() -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(413, PLAIN, b"too large")

    async with serving(refuse) as wire:
        client = await wire.client()
        answer = await client.ask(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert answer.status == 413 and answer["Connection"] == "close"
        assert await client.rest() == b""


async def test_expect_is_ignored_on_http_1_0_and_without_a_body(echo: Wire) -> None:
    assert (await echo.ask(GET + b"Expect: 100-continue\r\n\r\n")).status == 200
    old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    assert (await echo.ask(old)).body == b"hi"


# Answers out


def streamed(exchange: Exchange) -> None:
    exchange.start(200, PLAIN, None)
    for piece in (b"one", b"", b"two"):
        exchange.write(piece)
        exchange.flush()
    exchange.finish()


async def test_an_answer_of_unknown_length_is_chunked() -> None:
    async with serving(streamed) as wire:
        client = await wire.client()
        for _ in range(2):
            answer = await client.ask(GET + b"\r\n")
            assert answer.body == b"onetwo" and answer["Transfer-Encoding"] == "chunked"


async def test_on_http_1_0_an_answer_of_unknown_length_ends_with_the_connection() -> None:
    async with serving(streamed) as wire:
        client = await wire.client()
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.body == b"onetwo" and answer["Connection"] == "close"
        assert "Transfer-Encoding" not in answer and "Content-Length" not in answer


async def test_http_1_0_keeps_the_connection_only_if_the_client_asks() -> None:
    async with serving(respond_target) as wire:
        client = await wire.client()
        for path in (b"/1", b"/2"):
            answer = await client.ask(b"GET %b HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" % path)
            assert answer.body == path and answer["Connection"] == "keep-alive"
        answer = await client.ask(b"GET /3 HTTP/1.0\r\n\r\n")
        assert answer.body == b"/3" and answer["Connection"] == "close"
        assert await client.rest() == b""


async def test_connection_close_is_honoured_and_said() -> None:
    async with serving(respond_target) as wire:
        client = await wire.client()
        answer = await client.ask(GET + b"Connection: CLOSE\r\n\r\n")
        assert answer["Connection"] == "close" and await client.rest() == b""


@pytest.mark.parametrize("handler", [respond_target, streamed])
async def test_the_answer_to_head_has_the_headers_and_no_body(handler: object) -> None:
    async with serving(handler) as wire:  # type: ignore[arg-type]
        client = await wire.client()
        for _ in range(2):
            answer = await client.ask(b"HEAD /1 HTTP/1.1\r\nHost: x\r\n\r\n", head_only=True)
            assert answer.status == 200 and answer["Content-Type"] == "text/plain"
        assert (await client.ask(GET + b"\r\n")).whole


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_have_none_even_if_their_owner_writes_one(status: int) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.target == b"/stream":
            exchange.start(status, b"", None)
            exchange.write(b"never")
            exchange.finish()
        else:
            exchange.respond(status, b"", b"never")

    async with serving(answer) as wire:
        client = await wire.client()
        for target in (b"/", b"/stream", b"/"):
            got = await client.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            assert got.status == status and "Transfer-Encoding" not in got
            assert status == 304 or "Content-Length" not in got


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("length", [None, 10])
async def test_an_answer_that_breaks_off_is_seen_as_broken(version: bytes, length: int | None) -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version)
        exchange = await handler.get()
        exchange.start(200, b"", length)
        exchange.write(b"begun")
        exchange.flush()
        assert b"begun" in await client.reader.readuntil(b"begun")
        exchange.abort()
        reset = False
        try:
            rest = await asyncio.wait_for(client.reader.read(), 5)
        except ConnectionResetError:
            reset, rest = True, b""
        assert b"0\r\n" not in rest
        # Without a length or chunks only a reset tells a broken answer from a complete one.
        assert reset or length or version == b"1.1"


# Order


async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time() -> None:
    owners: list[Gather] = []
    async with serving(lambda exchange: owners.append(Gather(exchange, lambda *_: None))) as wire:
        client = await wire.client()
        request = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d"
        await client.send(b"".join(request % (n, n) for n in range(5)))
        for n in range(5):
            await until(lambda: len([owner for owner in owners if owner.events]) > n, "the end of a body")  # noqa: B023
            assert len(owners) == n + 1 and owners[n].exchange.target == b"/%d" % n
            owners[n].exchange.respond(200, b"", owners[n].data)
            assert (await client.answer()).body == b"%d" % n


async def test_a_thousand_pipelined_requests_behind_a_slow_one_are_all_answered() -> None:
    parked: list[Exchange] = []

    def answer(exchange: Exchange) -> None:
        if exchange.target == b"/slow":
            parked.append(exchange)
        else:
            exchange.respond(200, b"", exchange.target)

    async with serving(answer) as wire:
        client = await wire.client()
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost:x\r\n\r\n" % n for n in range(1000))
        await client.send(GET.replace(b"/ ", b"/slow ") + b"\r\n" + requests)
        await until(lambda: parked, "the slow request")
        parked[0].respond(200, b"", b"slow")
        assert (await client.answer()).body == b"slow"
        for n in range(1000):
            assert (await client.answer()).body == b"/%d" % n


async def test_more_pipelined_requests_than_anybody_needs_are_refused_behind_the_others() -> None:
    handler = Parked()
    async with serving(handler, Limits(pipelined=3)) as wire:
        client = await wire.client()
        await client.send((GET + b"\r\n") * 10)
        for n in range(4):
            (await handler.get(n)).respond(200, b"", b"")
            assert (await client.answer()).status == 200
        assert (await client.answer()).status == 429
        assert await client.rest() == b""


async def test_an_early_answer_leaves_the_connection_usable_when_little_of_the_body_is_missing() -> None:
    async with serving(respond_target) as wire:
        client = await wire.client()
        answer = await client.ask(POST + b"Content-Length: 10\r\n\r\nhello")
        assert answer.status == 200 and "Connection" not in answer
        await client.send(b"world" + GET.replace(b"/ ", b"/next "), b"\r\n")
        assert (await client.answer()).body == b"/next"


async def test_an_early_answer_by_an_owner_that_lets_go_leaves_the_connection_usable() -> None:
    class LetsGo(Idle):
        def __init__(self, exchange: Exchange) -> None:
            exchange.owner = self
            exchange.hold_body()
            exchange.respond(200, b"", b"early")
            exchange.owner = Idle()

    async with serving(LetsGo) as wire:
        client = await wire.client()
        for _ in range(2):
            assert (await client.ask(POST + b"Content-Length: 5\r\n\r\n")).body == b"early"
            await client.send(b"hello")


async def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    async with serving(respond_target) as wire:
        client = await wire.client()
        await client.send(POST + b"Content-Length: 50000000\r\n\r\n")

        async def send() -> None:
            try:
                for _ in range(500):
                    await client.send(b"x" * 100_000)
            except ConnectionError:
                pass

        sending = asyncio.ensure_future(send())
        answer = await client.answer()
        assert answer.status == 200 and answer["Connection"] == "close" and answer.whole
        sending.cancel()


async def test_a_held_body_that_ends_with_its_answer_does_not_hold_the_next_request() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        for n in range(2):
            await client.send(HELLO)
            exchange = await handler.get(n)
            exchange.hold_body()
            exchange.respond(429, b"", b"")
            assert (await client.answer()).status == 429


async def test_the_body_of_a_pipelined_request_is_read_when_its_turn_comes() -> None:
    parked: list[Exchange] = []

    def take(exchange: Exchange) -> None:
        if exchange.length:
            Gather(exchange)
        else:
            parked.append(exchange)

    async with serving(take) as wire:
        client = await wire.client()
        await client.send(GET + b"\r\n" + POST + b"Content-Length: 10\r\n\r\nhello")
        await until(lambda: parked, "the first request")
        parked[0].respond(200, b"", b"first")
        assert (await client.answer()).body == b"first"
        await client.send(b"world")
        assert (await client.answer()).body == b"helloworld"


# Upgrades


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("offer", [b"h2c", b"websocket, h2c", b"TLS/1.0"])
async def test_an_offer_of_another_protocol_is_plain_http(echo: Wire, framing: bytes, offer: bytes) -> None:
    body = {b"": b"", b"C": b"hello", b"T": b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"}[framing[:1]]
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AA\r\n%b\r\n" % (
        offer,
        framing,
    )
    client = await echo.client()
    await client.send((head + body) * 3 + HELLO + head + body)
    expected = b"hello" if framing else b""
    for want in (expected, expected, expected, b"hello", expected):
        assert (await client.answer()).body == want
    await client.send(*(bytes([byte]) for byte in head + body + HELLO))
    assert (await client.answer()).body == expected
    assert (await client.answer()).body == b"hello"


async def test_a_thousand_offers_in_one_write_are_a_thousand_requests(echo: Wire) -> None:
    client = await echo.client()
    sending = asyncio.ensure_future(client.send((GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n") * 1000))
    for _ in range(1000):
        assert (await client.answer()).status == 200
    await sending


async def test_a_bad_request_behind_an_offer_is_refused(echo: Wire) -> None:
    offer = GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    for bad in (GET.replace(b"Host", b"A") + b"\r\n", b"x y z\r\n", GET + b"A : b\r\n\r\n"):
        client = await echo.client()
        await client.send(offer + bad + GET + b"\r\n")
        assert [(await client.answer()).status, (await client.answer()).status] == [200, 400]
        assert await client.rest() == b""


async def test_an_offer_with_connection_close_is_answered_and_closed(echo: Wire) -> None:
    head = POST + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"
    client = await echo.client()
    await client.send(head + GET + b"\r\n")
    assert (await client.answer()).body == b"hello"
    assert await client.rest() == b""


WEBSOCKET = GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"


async def test_a_websocket_request_can_be_switched_and_nothing_behind_it_is_lost() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(WEBSOCKET + b"first", b"second")
        exchange = await handler.get()
        assert exchange.upgrade == b"websocket"
        connection = exchange._connection
        await until(lambda: connection._behind == b"firstsecond", "what came behind")
        transport, behind = exchange.switch(b"Sec-WebSocket-Accept: a\r\n")
        assert behind == b"firstsecond"
        answer = await client.answer()
        assert answer.status == 101 and answer["Upgrade"] == "websocket" and answer["Connection"] == "Upgrade"
        assert not wire.server.connections
        transport.close()


async def test_a_websocket_request_may_be_declined_with_an_ordinary_answer() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(WEBSOCKET + b"frame")
        (await handler.get()).respond(404, PLAIN, b"no")
        answer = await client.answer()
        assert (answer.status, answer.body, answer["Connection"]) == (404, b"no", "close")
        assert await client.rest() == b""


async def test_a_client_cannot_fill_the_memory_behind_an_upgrade_request() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(WEBSOCKET)
        exchange = await handler.get()
        client.writer.write(b"x" * 30_000_000)
        await until(lambda: len(exchange._connection._behind) > 65536, "bytes behind the request")
        before = -1
        while before != (before := len(exchange._connection._behind)):
            await asyncio.sleep(0.02)
        assert before < 2_000_000
        client.reset()


# Back-pressure


async def test_an_owner_is_told_to_hold_and_to_go_on() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(GET + b"\r\n")
        exchange = await handler.get()
        owner = exchange.owner = Gather.__new__(Gather)
        owner.events = []
        exchange.start(200, b"", 20_000_000)
        exchange.write(b"x" * 20_000_000)
        exchange.flush()
        assert owner.events == ["hold"]
        exchange.finish()
        assert (await client.answer()).body == b"x" * 20_000_000


async def test_answers_to_pipelined_requests_wait_until_the_client_has_taken_those_before() -> None:
    begun: list[int] = []
    body = b"x" * 8_000_000

    def answer(exchange: Exchange) -> None:
        begun.append(1)
        exchange.respond(200, b"", body)

    async with serving(answer) as wire:
        client = await wire.client()
        await client.send((GET + b"\r\n") * 20)
        await until(lambda: begun, "the first answer")
        await asyncio.sleep(0.05)
        assert len(begun) < 4
        for _ in range(20):
            assert (await client.answer()).body == body
        assert (await client.ask(GET + b"\r\n")).body == body


async def test_a_held_body_is_not_read_until_it_is_released() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        client = await wire.client()
        await client.send(POST + b"Content-Length: 20000000\r\n\r\n")
        exchange = await handler.get()
        exchange.hold_body()
        sending = asyncio.ensure_future(client.send(b"x" * 20_000_000))
        done, _ = await asyncio.wait([sending], timeout=0.05)
        assert not done and exchange.received < 1_000_000
        owner = Gather(exchange)
        exchange.release_body()
        assert len((await client.answer()).body) == 20_000_000 and owner.events[0] == "end"
        await sending


# Leaving


@pytest.mark.parametrize("leave", [RawClient.half_close, RawClient.reset])
async def test_an_owner_is_told_when_its_client_leaves(leave: object) -> None:
    owners: list[Gather] = []
    async with serving(lambda exchange: owners.append(Gather(exchange, lambda *_: None))) as wire:
        for request in (GET + b"\r\n", HELLO, POST + b"Content-Length: 9\r\n\r\nhello"):
            client = await wire.client()
            await client.send(request)
            await until(lambda: owners, "the request")
            leave(client)  # type: ignore[operator]
            await until(lambda: owners[0].events[-1:] == ["gone"], "the news")
            assert owners.pop().events.count("gone") == 1
        await until(lambda: not wire.server.connections, "the end of the connections")


async def test_draining_answers_what_runs_then_closes_and_closes_the_idle_at_once() -> None:
    handler = Parked()
    async with serving(handler) as wire:
        idle, running = await wire.client(), await wire.client()
        await running.send(GET + b"\r\n")
        exchange = await handler.get()
        await until(lambda: len(wire.server.connections) == 2, "both connections")
        assert wire.server.busy == 1
        wire.server.drain()
        assert await idle.rest() == b""
        exchange.respond(200, b"", b"done")
        answer = await running.answer()
        assert answer.body == b"done" and answer["Connection"] == "close"
        assert await running.rest() == b"" and wire.server.busy == 0


async def test_draining_with_silence_hears_who_has_just_been_answered_out() -> None:
    async with serving(lambda exchange: exchange.respond(200, b"", b"done")) as wire:
        lively, idle = await wire.client(), await wire.client()
        for client in (lively, idle):
            assert "Connection" not in await client.ask(GET + b"\r\n")
        wire.server.drain(1.0)
        assert (await lively.ask(GET + b"\r\n"))["Connection"] == "close"
        assert await lively.rest() == b"" and wire.server.listens
        assert await idle.rest() == b"" and not wire.server.listens


async def test_a_bug_in_a_handler_ends_its_connection_and_no_other() -> None:
    class Bug(Exception): ...

    def answer(exchange: Exchange) -> None:
        if exchange.target == b"/bug":
            raise Bug
        exchange.respond(200, b"", b"")

    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    async with serving(answer) as wire:
        other = await wire.client()
        await other.ask(GET + b"\r\n")
        assert await wire.talk(b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        assert (await other.ask(GET + b"\r\n")).status == 200
    assert any(isinstance(error, Bug) for error in reported)


# TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    made = ensure_certificates(Path(tmp_path_factory.mktemp("tls")), [])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made.chain, made.key)
    return server, ssl.create_default_context(cafile=str(made.ca))


async def test_over_tls_a_body_comes_back_byte_for_byte(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    secure: list[bool] = []

    def take(exchange: Exchange) -> None:
        secure.append(exchange.secure)
        Gather(exchange)

    body = random.Random(6).randbytes(3_000_000)
    async with serving(take, server_tls=tls[0], client_tls=tls[1]) as wire:
        client = await wire.client()
        for head in (b"Content-Length: 3000000\r\n\r\n", b"Connection: close\r\nContent-Length: 3000000\r\n\r\n"):
            sending = asyncio.ensure_future(client.send(POST + head + body))
            assert (await client.answer()).body == body
            await sending
        assert await client.reader.read() == b""  # ended by TLS, not cut off
    assert secure == [True, True]


async def test_over_tls_an_early_answer_reaches_the_client(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    limits = Limits(linger=0.1)
    async with serving(respond_target, limits, server_tls=tls[0], client_tls=tls[1]) as wire:
        client = await wire.client()
        answer = await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert answer.status == 200 and answer["Connection"] == "close"
        assert await client.reader.read() == b""
        assert (await wire.ask(GET + b"A : b\r\n\r\n")).status == 400


def test_the_length_of_a_chunked_body_is_no_length() -> None:
    assert CHUNKED < 0
