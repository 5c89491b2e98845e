"""The client side of the engine: pooling, framing of answers, answers that break off, peers that misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from raw_http import BackEnd, always, back_end, engine_loops, until

from stoker_wire.client import AnswerHead, ClientConnection, Pool
from stoker_wire.limits import Limits
from stoker_wire.message import Field

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"X-A: b\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    made.close()


class Caller:
    """A receiver that gathers what it is told. `outcome` is "end", "switched", or the reason of a break."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[Field] = []
        self.length: int | None = None
        self.body = b""
        self.answered = False
        self.outcome = ""
        self.events: list[str] = []
        self.transport: asyncio.Transport | None = None
        self.behind = b""

    def answer(self, head: AnswerHead) -> None:
        assert not self.status, "answered twice"
        self.status, self.fields, self.length = head.status, head.fields, head.length

    def data(self, data: bytes) -> None:
        assert self.status and not self.outcome
        self.body += data

    def end(self) -> None:
        assert not self.outcome
        self.outcome = "end"

    def flush_answer(self) -> None:
        self.events.append("flush")

    def broken(self, reason: str, answered: bool) -> None:
        assert not self.outcome
        self.outcome, self.answered = f"broken: {reason}", answered

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None:
        self.outcome, self.fields, self.transport, self.behind = "switched", fields, transport, behind

    def hold_request(self) -> None:
        self.events.append("hold")

    def release_request(self) -> None:
        self.events.append("release")

    async def done(self) -> str:
        await until(lambda: self.outcome, "the end of the answer")
        return self.outcome


async def take(pool: Pool, address: str) -> ClientConnection:
    """A connection as a caller gets it: from the pool, or else dialled."""
    connection = pool.take(address)
    if connection is not None:
        return connection
    dialled: asyncio.Future[tuple[ClientConnection | None, str]] = asyncio.get_running_loop().create_future()
    pool.dial(address, lambda connection, reason: dialled.set_result((connection, reason)))
    connection, reason = await dialled
    assert connection is not None, reason
    return connection


async def call(
    pool: Pool,
    address: str,
    head: bytes = GET,
    *,
    head_only: bool = False,
    upgrades: bool = False,
    more: bool = False,
) -> Caller:
    caller = Caller()
    (await take(pool, address)).send(caller, head, head_only=head_only, upgrades=upgrades, more=more)
    await caller.done()
    return caller


async def answered_with(pool: Pool, answer: bytes, *, close: bool = False, upgrades: bool = False) -> Caller:
    """What a caller gets from a peer that sends these bytes, and closes behind them or not."""

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(answer)
        if not close:
            await reader.read()

    async with back_end(script) as back:
        return await call(pool, back.address, upgrades=upgrades)


# Pooling


async def test_one_connection_serves_one_call_after_the_other(pool: Pool) -> None:
    async with back_end(always(HELLO)) as back:
        for _ in range(5):
            caller = await call(pool, back.address)
            assert (caller.outcome, caller.status, caller.body, caller.length) == ("end", 200, b"hello", 5)
            assert caller.fields == [(b"X-A", b"b")]
        assert back.connections == 1 and repr(pool) == "<Pool idle=1 dials=0>"


async def test_calls_at_once_have_connections_of_their_own(pool: Pool) -> None:
    async with back_end(always(HELLO)) as back:
        await asyncio.gather(*(call(pool, back.address) for _ in range(10)))
        assert back.connections == 10
        await asyncio.gather(*(call(pool, back.address) for _ in range(10)))
        assert back.connections == 10


async def test_an_idle_connection_that_its_peer_closes_leaves_the_pool_at_once(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(HELLO)

    async with back_end(script) as back:
        for _ in range(3):
            assert (await call(pool, back.address)).outcome == "end"
            await until(lambda: repr(pool) == "<Pool idle=0 dials=0>", "the pool to notice")
        assert back.connections == 3


async def test_a_call_that_crosses_with_its_peers_close_is_broken_before_one_byte(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(HELLO)
        await back.read_request(reader)

    async with back_end(script) as back:
        await call(pool, back.address)
        connection = await take(pool, back.address)
        assert connection.reused
        caller = Caller()
        connection.send(caller, GET)
        assert (await caller.done()).startswith("broken") and not caller.answered and not caller.status


async def test_an_unused_connection_is_closed_after_a_while() -> None:
    pool = Pool(Limits(pooled_idle=0.01))
    async with back_end(always(HELLO)) as back:
        await call(pool, back.address)
        await until(lambda: not back.open, "the end of the connection")
    pool.close()


async def test_the_connections_to_a_peer_that_leaves_are_closed(pool: Pool) -> None:
    async with back_end(always(HELLO)) as back:
        await asyncio.gather(*(call(pool, back.address) for _ in range(3)))
        pool.close_address(back.address)
        await until(lambda: not back.open, "the end of the connections")
        assert pool.take(back.address) is None


async def test_a_connection_that_says_close_is_not_used_again(pool: Pool) -> None:
    async with back_end(always(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")) as back:
        for _ in range(2):
            assert (await call(pool, back.address)).body == b"ok"
        assert back.connections == 2


async def test_unix_sockets_are_addresses_too(pool: Pool, tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)

    path = tmp_path / "peer.sock"
    async with await asyncio.start_unix_server(script, path):
        assert (await call(pool, f"unix:{path}")).body == b"hello"


@pytest.mark.parametrize(
    "address", ["unix:/nowhere/at/all", "tcp:127.0.0.1:1", "tcp:127.0.0.1:none", "tcp:127.0.0.1:99999"]
)
async def test_a_failed_dial_says_why(pool: Pool, address: str) -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    pool.dial(address, lambda connection, reason: failed.set_result(reason))
    assert await asyncio.wait_for(failed, 5)


async def test_a_dial_that_nobody_answers_ends_after_its_limit() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        pool = Pool(Limits(dial=0.05))
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        pool.dial(f"tcp:127.0.0.1:{address[1]}", lambda connection, reason: failed.set_result(reason))
        assert "0.05 s" in await asyncio.wait_for(failed, 5)
        pool.close()
        for one in waiting:
            one.close()


async def test_an_abandoned_call_closes_its_connection(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(OK + b"Content-Length: 100\r\n\r\nhello")
        await reader.read()

    async with back_end(script) as back:
        caller = Caller()
        connection = await take(pool, back.address)
        connection.send(caller, GET)
        await until(lambda: caller.body, "the beginning of the answer")
        connection.abandon()
        await until(lambda: not back.open, "the end of the connection")
        assert not caller.outcome and repr(pool) == "<Pool idle=0 dials=0>"


# Answers


@pytest.mark.parametrize(
    ("answer", "body", "length"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", b"", 0),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n", b"hello", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", None),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", 5),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"", None),
        (b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok", 2),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO, b"hello", 5),
        (OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok", b"ok", 2),
    ],
)
async def test_a_complete_answer_is_received_and_its_connection_used_again(
    pool: Pool, answer: bytes, body: bytes, length: int | None
) -> None:
    async with back_end(always(answer)) as back:
        for _ in range(3):
            caller = await call(pool, back.address)
            assert (caller.outcome, caller.body, caller.length) == ("end", body, length)
        assert back.connections == 1
    assert b"Link" not in dict(caller.fields) and b"X-T" not in dict(caller.fields)


@pytest.mark.parametrize("head", [OK + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Connection: close\r\n\r\n"])
async def test_an_answer_without_a_length_ends_with_its_connection(pool: Pool, head: bytes) -> None:
    caller = await answered_with(pool, head + b"hello", close=True)
    assert (caller.outcome, caller.body, caller.length) == ("end", b"hello", None)


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"hello", b""),
        HELLO,
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n",
    ],
)
async def test_the_answer_to_head_ends_with_its_head(pool: Pool, answer: bytes) -> None:
    answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with back_end(always(answer)) as back:
        for _ in range(3):
            caller = await call(pool, back.address, head_only=True)
            assert caller.outcome == "end" and caller.body == b""
        assert back.connections == 1


async def test_a_body_behind_the_answer_to_head_never_reaches_the_next_caller(pool: Pool) -> None:
    async with back_end(always(HELLO)) as back:
        for _ in range(3):
            caller = await call(pool, back.address, head_only=True)
            assert caller.outcome == "end" and caller.body == b""
            assert (await call(pool, back.address)).body == b"hello"


async def test_headers_that_connection_names_are_dropped(pool: Pool) -> None:
    head = (
        OK
        + b"Connection: x-secret , keep-alive\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await answered_with(pool, head)).fields == [(b"X-Kept", b"2")]


# Answers that break off


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200",
        OK + b"Content-Length: 5\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_broken(pool: Pool, answer: bytes) -> None:
    caller = await answered_with(pool, answer, close=True)
    assert caller.outcome.startswith("broken") and caller.answered


async def test_a_connection_that_ends_before_one_byte_says_so(pool: Pool) -> None:
    caller = await answered_with(pool, b"", close=True)
    assert caller.outcome.startswith("broken") and not caller.answered


async def test_an_answer_without_a_length_that_ends_with_a_reset_is_broken(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(OK + b"\r\nhello")
        await until(lambda: caller.body, "the beginning")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    caller = Caller()
    async with back_end(script) as back:
        (await take(pool, back.address)).send(caller, GET)
        assert (await caller.done()).startswith("broken")


# Peers that misbehave


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nx",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
        OK + b"A: b\nContent-Length: 0\r\n\r\n",
        OK + b"A : b\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"A: " + b"b" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
        OK + b"A: " + b"b" * 400_000,
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 20_000,
    ],
)
async def test_a_malformed_answer_is_broken_and_its_connection_closed(pool: Pool, answer: bytes) -> None:
    caller = await answered_with(pool, answer)
    assert caller.outcome.startswith("broken") and caller.answered
    assert repr(pool) == "<Pool idle=0 dials=0>"


@pytest.mark.parametrize("garbage", [b"x", b"HTT", HELLO, OK + b"Content-Length: 0\r\n\r\n", b"\0" * 100_000])
@pytest.mark.parametrize("answer", [HELLO, OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"])
@pytest.mark.parametrize("head_only", [False, True])
async def test_what_comes_behind_an_answer_never_reaches_the_next_caller(
    pool: Pool, garbage: bytes, answer: bytes, head_only: bool
) -> None:
    async with back_end(always(answer + garbage)) as back:
        for _ in range(3):
            caller = await call(pool, back.address, head_only=head_only)
            assert caller.outcome == "end"
            assert caller.body == b"" if head_only else caller.body in (b"hello", b"x")
        assert back.connections == 3


async def test_what_comes_while_nobody_asks_ends_the_connection(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(HELLO)
        await until(lambda: repr(pool) == "<Pool idle=1 dials=0>", "the connection to be idle")
        writer.write(HELLO)
        await reader.read()

    async with back_end(script) as back:
        await call(pool, back.address)
        await until(lambda: repr(pool) == "<Pool idle=0 dials=0>", "the end of the connection")


async def test_an_answer_in_two_reads_teaches_nothing_about_other_answers(pool: Pool) -> None:
    """Heads are remembered by their bytes: one that only looks like a whole head must not be taken for one."""
    victim = HELLO

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://evil\r\nZ: ")
        await until(lambda: len(attacker.events) > 0, "the first half to be read")
        writer.write(victim)
        await reader.read()

    attacker = Caller()
    async with back_end(script) as evil, back_end(always(victim)) as good:
        (await take(pool, evil.address)).send(attacker, GET)
        await attacker.done()
        assert attacker.status == 302
        for _ in range(3):
            caller = await call(pool, good.address)
            assert (caller.status, caller.fields) == (200, [(b"X-A", b"b")])


# Requests with a body


async def test_an_answer_that_comes_before_the_request_is_complete_ends_the_connection(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HELLO)
        await reader.read()

    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    async with back_end(script) as back:
        for _ in range(2):
            assert (await call(pool, back.address, head + b"hello", more=True)).body == b"hello"
        assert back.connections == 2
        await until(lambda: not back.open, "the end of the connections")


async def test_a_body_that_follows_its_head_is_sent_and_the_connection_used_again(pool: Pool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    async with back_end(always(HELLO)) as back:
        for _ in range(3):
            caller = Caller()
            connection = await take(pool, back.address)
            connection.send(caller, head, more=True)
            connection.send_body(b"hello")
            connection.send_body(b"world")
            connection.end_body()
            assert await caller.done() == "end"
        assert back.connections == 1


async def test_a_caller_is_told_to_hold_while_the_peer_reads_nothing(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(lambda: "hold" in caller.events, "the caller to be held")
        await back.read_request(reader)
        writer.write(HELLO)

    caller = Caller()
    size = 20_000_000
    async with back_end(script) as back:
        connection = await take(pool, back.address)
        connection.send(caller, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size, more=True)
        connection.send_body(b"x" * size)
        connection.end_body()
        assert await caller.done() == "end" and "release" in caller.events


async def test_a_held_answer_is_not_read(pool: Pool) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(OK + b"Content-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        await reader.read()

    caller = Caller()
    async with back_end(script) as back:
        connection = await take(pool, back.address)
        connection.send(caller, GET)
        await until(lambda: caller.body, "the beginning")
        connection.hold()
        held = len(caller.body)
        await asyncio.sleep(0.03)
        assert len(caller.body) == held < 20_000_000
        connection.release()
        assert await caller.done() == "end" and len(caller.body) == 20_000_000


# Upgrades


async def test_a_switch_gives_the_bare_transport_and_what_came_behind(pool: Pool) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\nframe"
    caller = await answered_with(pool, answer, upgrades=True)
    assert (caller.outcome, caller.fields, caller.behind) == ("switched", [(b"X-A", b"b")], b"frame")
    assert caller.transport is not None
    caller.transport.close()


async def test_a_declined_switch_is_an_ordinary_answer(pool: Pool) -> None:
    caller = await answered_with(pool, HELLO, upgrades=True)
    assert (caller.outcome, caller.body) == ("end", b"hello")
