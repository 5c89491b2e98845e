"""The life of a call through a real proxy to small real back ends: admission, choice, repeats, deadlines, headers."""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from raw_http import BackEnd, RawAnswer, RawClient, Script, Wire, always, back_end, engine_loops, serving, until

from stoker_gateway.counters import FunctionCounters
from stoker_gateway.proxy.proxy import Proxy
from stoker_gateway.routes import Route, Target

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
KEY = "f.openfaas-fn"


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


class Gateway:
    """A proxy with its public side on a free port. `wakes` are the keys that it asked control to wake."""

    def __init__(self, proxy: Proxy, wire: Wire, wakes: list[str]) -> None:
        self.proxy = proxy
        self.wire = wire
        self.wakes = wakes

    def deploy(
        self, *addresses: str, timeout: float = 10.0, concurrency: int = 0, failure: str = "", key: str = KEY
    ) -> None:
        targets = [Target(address, address) for address in addresses]
        self.proxy.put(Route(key, timeout, concurrency, targets, failure))

    async def client(self) -> RawClient:
        return await self.wire.client()

    async def call(
        self,
        method: bytes = b"GET",
        path: bytes = b"/function/f",
        headers: bytes = b"",
        body: bytes | None = None,
    ) -> RawAnswer:
        head = b"%b %b HTTP/1.1\r\nHost: gw\r\n%b" % (method, path, headers)
        if body is not None:
            head += b"Content-Length: %d\r\n" % len(body)
        return await self.wire.ask(head + b"\r\n" + (body or b""), head_only=method == b"HEAD")

    def counters(self) -> FunctionCounters:
        (counters,) = self.proxy.counters()
        return counters

    def codes(self) -> dict[int, int]:
        return {code: sum(timings.buckets) for code, timings in self.counters().codes.items()}

    async def started(self, number: int) -> None:
        await until(lambda: self.proxy.counters() and self.counters().started == number, f"{number} calls")

    async def counted(self, code: int, number: int) -> None:
        await until(lambda: self.codes().get(code) == number, f"{number} calls with {code}")

    async def woken(self, number: int) -> None:
        await until(lambda: len(self.wakes) == number, f"{number} wakes")

    @property
    def inflight(self) -> dict[str, int]:
        return {target.id: target.inflight for target in self.proxy._entries[KEY].targets}


@asynccontextmanager
async def gateway(
    max_body: int = 1 << 20, max_waiting: int = 100, control: str = "unix:/nowhere"
) -> AsyncIterator[Gateway]:
    wakes: list[str] = []
    proxy = Proxy(control, wakes.append, max_body=max_body, max_waiting=max_waiting, control_wait=0.3)
    async with serving(proxy.handle) as wire:
        yield Gateway(proxy, wire, wakes)
    proxy.close()


class Parked:
    """A back end that answers the calls that it has when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def __call__(self, back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.calls.append((await back.read_request(reader), writer))

    async def get(self, number: int) -> tuple[bytes, asyncio.StreamWriter]:
        await until(lambda: len(self.calls) > number, f"call {number} at the replica")
        return self.calls[number]

    async def answer(self, number: int, answer: bytes = HELLO) -> None:
        (await self.get(number))[1].write(answer)


async def seen_by_replica(request: bytes) -> bytes:
    """What a replica gets when a client sends these bytes."""
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy(back.address)
        assert (await gate.wire.ask(request)).status == 200
        return back.heads[0]


def fields(head: bytes) -> dict[str, str]:
    """Header fields by lower-case name; fails if there are two of a name."""
    lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
    pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert len(dict(pairs)) == len(pairs), lines
    return dict(pairs)


# What passes


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/function/f", b"/"),
        (b"/function/f/", b"/"),
        (b"/function/f?a=/b&c=%2F", b"/?a=/b&c=%2F"),
        (b"/function/f/a//b/../c%2Fd/./%00?x=%zz&y=/../", b"/a//b/../c%2Fd/./%00?x=%zz&y=/../"),
        (b"/function/f//", b"//"),
        (b"/function/f/%2e%2e/system", b"/%2e%2e/system"),
        (b"/function/f.openfaas-fn/a;b|{}", b"/a;b|{}"),
        (b"http://elsewhere/function/f/a?b", b"/a?b"),
    ],
)
async def test_path_and_query_pass_exactly_as_received(target: bytes, path: bytes) -> None:
    head = await seen_by_replica(b"GET %b HTTP/1.1\r\nHost: gw\r\n\r\n" % target)
    assert head.startswith(b"GET %b HTTP/1.1\r\n" % path)


@pytest.mark.parametrize(
    "method", [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND", b"QUERY"]
)
async def test_every_method_passes(method: bytes) -> None:
    assert (await seen_by_replica(b"%b /function/f HTTP/1.1\r\nHost: gw\r\n\r\n" % method)).startswith(method + b" / ")


async def test_hop_by_hop_headers_and_those_that_connection_names_pass_neither_way() -> None:
    answer = (
        OK
        + b"Connection: X-Inner, keep-alive\r\nX-Inner: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\nTrailer: T\r\n"
        b"X-Kept: 2\r\nContent-Length: 0\r\n\r\n"
    )
    async with gateway() as gate, back_end(always(answer)) as back:
        gate.deploy(back.address)
        got = await gate.call(
            headers=b"Connection: close, X-Secret, X-Forwarded-Proto\r\nX-Secret: 1\r\nTE: x\r\nKeep-Alive: 5\r\n"
            b"X-Forwarded-Proto: spdy\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\nX-Kept: 3\r\n"
        )
    seen = fields(back.heads[0])
    assert seen["x-kept"] == "3" and seen["host"] == "gw" and seen["x-forwarded-proto"] == "http"
    assert not seen.keys() & {"connection", "x-secret", "te", "keep-alive", "proxy-authorization", "upgrade"}
    assert got["X-Kept"] == "2" and got["Connection"] == "close"
    assert not {"X-Inner", "Keep-Alive", "Proxy-Authenticate", "Trailer"} & {name.decode() for name, _ in got.fields}


async def test_a_call_is_marked_on_its_way_in_and_out() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy(back.address)
        answer = await gate.call()
    seen = fields(back.heads[0])
    assert seen["x-forwarded-for"] == "127.0.0.1" and seen["x-forwarded-host"] == "gw"
    assert seen["x-forwarded-proto"] == "http"
    assert uuid.UUID(seen["x-call-id"]).version == 4
    assert answer["X-Call-Id"] == seen["x-call-id"] and answer["X-Start-Time"] == seen["x-start-time"]
    assert re.fullmatch(r"\d+\.\d{6}", answer["X-Duration-Seconds"]) and "Date" in answer


async def test_a_callers_own_call_id_is_kept_and_echoed_and_forwarding_is_continued() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy(back.address)
        answer = await gate.call(
            headers=b"x-call-ID: mine-1\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nX-Forwarded-Host: front\r\n"
            b"X-Forwarded-Proto: https\r\nX-Start-Time: 5\r\n"
        )
    seen = fields(back.heads[0])
    assert answer["X-Call-Id"] == seen["x-call-id"] == "mine-1"
    assert seen["x-forwarded-for"] == "10.0.0.1, 10.0.0.2, 127.0.0.1"
    assert (seen["x-forwarded-host"], seen["x-forwarded-proto"]) == ("front", "https")
    assert seen["x-start-time"] != "5"


async def test_a_chain_of_forwarders_in_several_headers_keeps_its_order() -> None:
    headers = b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"
    head = await seen_by_replica(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n%b\r\n" % headers)
    assert fields(head)["x-forwarded-for"] == "1.1.1.1, 2.2.2.2, 127.0.0.1"


@pytest.mark.parametrize("bad", [b"", b"a b", b"x" * 129, b"\xff"])
async def test_a_call_id_that_is_not_usable_is_replaced(bad: bytes) -> None:
    seen = fields(await seen_by_replica(b"GET /function/f HTTP/1.1\r\nHost: gw\r\nX-Call-Id: %b\r\n\r\n" % bad))
    assert uuid.UUID(seen["x-call-id"])


async def test_a_functions_own_marks_do_not_replace_ours() -> None:
    answer = (
        OK + b"X-Call-Id: false\r\nX-Start-Time: 1\r\nX-Duration-Seconds: 2\r\nDate: then\r\nContent-Length: 0\r\n\r\n"
    )
    async with gateway() as gate, back_end(always(answer)) as back:
        gate.deploy(back.address)
        got = await gate.call(headers=b"X-Call-Id: mine\r\nContent-Type: application/json\r\n")
    assert got["X-Call-Id"] == "mine" and got["Date"] == "then" and got["X-Start-Time"] != "1"
    assert got["Content-Type"] == "application/json"  # of the request, where the function names none


async def test_a_random_body_of_5_mb_comes_back_byte_for_byte() -> None:
    async def echo(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await back.read_request(reader)
            body = request.partition(b"\r\n\r\n")[2]
            writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    body = random.Random(7).randbytes(5_000_000)
    async with gateway(max_body=5_000_000) as gate, back_end(echo) as back:
        gate.deploy(back.address)
        client = await gate.client()
        sending = asyncio.ensure_future(
            client.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 5000000\r\n\r\n" + body)
        )
        assert (await client.answer()).body == body
        await sending


async def test_a_chunked_body_passes_as_chunks_and_a_chunked_answer_too() -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        back.heads.append(head)
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        await reader.read()

    async with gateway() as gate, back_end(script) as back:
        gate.deploy(back.address)
        client = await gate.client()
        await client.send(
            b"POST /function/f HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n",
            b"3;x\r\nhel\r\n",
            b"2\r\nlo\r\n0\r\nT: 1\r\n\r\n",
        )
        assert (await client.answer()).body == b"hello"
        assert fields(back.heads[0])["transfer-encoding"] == "chunked"


async def test_the_answer_to_head_passes_without_a_body() -> None:
    async with gateway() as gate, back_end(always(OK + b"Content-Length: 5\r\n\r\n")) as back:
        gate.deploy(back.address)
        for _ in range(2):
            assert (await gate.call(b"HEAD"))["Content-Length"] == "5"
        assert back.connections == 1


async def test_a_client_that_waits_for_100_continue_gets_it_when_a_replica_has_room() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy()
        client = await gate.client()
        await client.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await until(lambda: gate.wakes, "the wake")
        gate.deploy(back.address)
        assert (await client.answer()).status == 100
        await client.send(b"hi")
        assert (await client.answer()).status == 200 and back.heads[0].endswith(b"\r\n\r\n")


async def test_an_unknown_function_is_named_in_a_404() -> None:
    async with gateway() as gate:
        for name in (b"ghost", b"g%2Fh", b"f.other"):
            answer = await gate.call(path=b"/function/%b/x?y" % name)
            assert answer.status == 404 and name in answer.body
            assert answer["X-Stoker-Error"] == "client; unknown-function"
        assert (await gate.call(path=b"/function/")).status == 404


async def test_what_is_no_function_goes_to_control_as_it_is() -> None:
    async with back_end(always(HELLO)) as control, gateway(control=control.address) as gate:
        for path in (b"/system/functions?a=%2F", b"/", b"/functionx", b"//function/f"):
            assert (await gate.call(path=path)).status == 200
        assert [head.split(b" ")[1] for head in control.heads] == [
            b"/system/functions?a=%2F",
            b"/",
            b"/functionx",
            b"//function/f",
        ]


async def test_control_that_does_not_answer_is_waited_for_and_then_reported() -> None:
    async with gateway() as gate:
        answer = await gate.call(path=b"/healthz")
    assert answer.status == 503 and "Retry-After" in answer


async def test_control_that_ends_before_it_answers_is_told_at_once_and_its_request_is_not_repeated() -> None:
    async with back_end(leaves) as control, gateway(control=control.address) as gate:
        answer = await gate.call(b"POST", b"/system/functions", body=b"{}")
        assert (answer.status, answer["X-Stoker-Error"]) == (503, "platform; unavailable")
        assert b"may be done or not" in answer.body
        assert len(control.heads) == 1


# Waiting and waking


async def test_calls_wait_for_one_wake_and_go_out_in_the_order_in_which_they_came() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(concurrency=1)
        clients = [await gate.client() for _ in range(20)]
        for number, client in enumerate(clients):
            await client.send(b"GET /function/f/%d HTTP/1.1\r\nHost: gw\r\n\r\n" % number)
            await gate.started(number + 1)
        assert gate.wakes == [KEY]
        gate.deploy(back.address, concurrency=1)
        for number, client in enumerate(clients):
            head, _ = await parked.get(number)
            assert head.startswith(b"GET /%d " % number)
            await parked.answer(number)
            assert (await client.answer()).status == 200
        assert gate.wakes == [KEY] and back.connections == 1


async def test_a_second_wake_is_asked_for_when_the_function_sleeps_again_or_control_forgot() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        for number in range(1, 4):
            gate.deploy()
            client = await gate.client()
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
            await gate.woken(2 * number - 1)
            gate.proxy.wake_again()
            assert len(gate.wakes) == 2 * number
            gate.deploy(back.address)
            assert (await client.answer()).status == 200


async def test_over_the_waiting_bound_a_call_gets_429_with_retry_after_and_its_connection_stays_usable() -> None:
    async with gateway(max_waiting=2) as gate, back_end(always(HELLO)) as back:
        gate.deploy()
        waiting = [await gate.client() for _ in range(2)]
        for number, client in enumerate(waiting):
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
            await gate.started(number + 1)
        refused = await gate.client()
        for request in (
            b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n",
            b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi",
        ):
            answer = await refused.ask(request)
            assert answer.status == 429 and answer["Retry-After"] == "1" and KEY.encode() in answer.body
            assert answer["X-Stoker-Error"].startswith("platform")
        # The body comes behind its answer.
        await refused.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\n")
        assert (await refused.answer()).status == 429
        gate.deploy(back.address)
        for client in waiting:
            assert (await client.answer()).status == 200
        await refused.send(b"hi" + b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        assert (await refused.answer()).status == 200
        assert gate.codes() == {429: 3, 200: 3}


async def test_waiting_calls_whose_clients_left_take_no_room_and_start_nothing() -> None:
    async with gateway(max_waiting=3) as gate, back_end(always(HELLO)) as back:
        gate.deploy()
        first = await gate.client()
        await first.send(b"GET /function/f/first HTTP/1.1\r\nHost: gw\r\n\r\n")
        await until(lambda: gate.wakes, "the wake")
        for number in range(1, 10):
            client = await gate.client()
            await client.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi")
            await gate.started(number + 1)
            client.half_close()
            await gate.counted(499, number)
        gate.deploy(back.address)
        assert (await first.answer()).status == 200
        assert len(back.heads) == 1 and gate.codes() == {499: 9, 200: 1}


async def test_a_thousand_waiting_calls_hear_at_once_that_the_function_cannot_start() -> None:
    async with gateway(max_waiting=1000) as gate:
        gate.deploy()
        client = await gate.client()
        clients = [client, *[await gate.client() for _ in range(600)]]
        for one in clients:
            await one.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await until(lambda: gate.counters().started == len(clients), "the calls")
        gate.deploy(failure="no module named nowhere")
        for one in clients:
            answer = await one.answer()
            assert answer.status == 503 and b"no module named nowhere" in answer.body
        assert gate.codes() == {503: 601} and gate.counters().inflight == 0
        assert (await gate.call()).status == 503


async def test_waiting_calls_of_a_removed_function_get_404_and_none_goes_to_a_replica() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, concurrency=1)
        clients = [await gate.client() for _ in range(5)]
        for number, client in enumerate(clients):
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
            await gate.started(number + 1)
        await parked.get(0)
        gate.proxy.remove(KEY)
        for client in clients[1:]:
            answer = await client.answer()
            assert answer.status == 404 and KEY.encode() in answer.body
        await parked.answer(0)
        assert (await clients[0].answer()).status == 200
        assert (await gate.call()).status == 404
        assert len(parked.calls) == 1 and gate.codes() == {404: 4, 200: 1} and gate.counters().inflight == 0


async def test_a_function_that_was_removed_while_it_slept_wakes_when_it_is_back() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy()
        client = await gate.client()
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await until(lambda: gate.wakes, "the wake")
        gate.proxy.remove(KEY)
        assert (await client.answer()).status == 404
        gate.deploy()
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await until(lambda: len(gate.wakes) == 2, "the second wake")
        gate.deploy(back.address)
        assert (await client.answer()).status == 200


# Choice


async def test_the_replica_with_the_fewest_calls_gets_the_next_one_and_equals_take_turns() -> None:
    one, two = Parked(), Parked()
    async with gateway() as gate, back_end(one) as first, back_end(two) as second:
        gate.deploy(first.address, second.address)
        clients = [await gate.client() for _ in range(6)]
        for number, client in enumerate(clients[:4]):
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
            await gate.started(number + 1)
            await until(lambda: len(one.calls) + len(two.calls) == gate.counters().started, "the call")
        assert (len(one.calls), len(two.calls)) == (2, 2)
        await one.answer(0)
        await one.answer(1)
        await until(lambda: gate.codes() == {200: 2}, "the answers")
        for client in clients[4:]:
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await one.get(3)
        assert len(two.calls) == 2


async def test_no_replica_gets_more_calls_at_once_than_its_concurrency() -> None:
    one, two = Parked(), Parked()
    async with gateway() as gate, back_end(one) as first, back_end(two) as second:
        gate.deploy(first.address, second.address, concurrency=2)
        clients = [await gate.client() for _ in range(6)]
        for client in clients:
            await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await one.get(1)
        await two.get(1)
        await until(lambda: gate.counters().started == 6, "all calls")
        assert (len(one.calls), len(two.calls)) == (2, 2) and set(gate.inflight.values()) == {2}
        await two.answer(0)
        await two.get(2)
        assert len(one.calls) == 2 and not gate.wakes


async def test_a_replica_that_leaves_the_table_gets_no_more_calls_and_finishes_its_own() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as old, back_end(always(HELLO)) as new:
        gate.deploy(old.address)
        client = await gate.client()
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await parked.get(0)
        gate.deploy(new.address)
        for _ in range(3):
            assert (await gate.call()).status == 200
        assert len(parked.calls) == 1 and len(new.heads) == 3
        await parked.answer(0)
        assert (await client.answer()).status == 200


# Repeats


async def leaves(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A replica that dies with the call in hand."""
    back.heads.append(await reader.readuntil(b"\r\n\r\n"))


@asynccontextmanager
async def bad_and_good(script: Script) -> AsyncIterator[tuple[Gateway, BackEnd, BackEnd]]:
    async with gateway() as gate, back_end(script) as bad, back_end(always(HELLO)) as good:  # type: ignore[arg-type]
        gate.deploy(bad.address, good.address)
        yield gate, bad, good


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_replica_that_cannot_be_reached_costs_no_call(method: bytes) -> None:
    async with gateway() as gate, back_end(always(HELLO)) as good:
        gate.deploy("unix:/nowhere", "tcp:127.0.0.1:1", good.address)
        for _ in range(6):
            assert (await gate.call(method, body=b"hi" if method == b"POST" else None)).status == 200
        assert gate.codes() == {200: 6} and set(gate.inflight.values()) == {0}


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
async def test_a_safe_call_whose_connection_breaks_before_one_byte_goes_to_another_replica(method: bytes) -> None:
    async with bad_and_good(leaves) as (gate, bad, good):  # type: ignore[arg-type]
        for _ in range(2):
            assert (await gate.call(method)).status == 200
        assert len(bad.heads) == 1 and len(good.heads) == 2


async def test_a_call_that_is_not_safe_or_has_a_body_is_never_repeated() -> None:
    for method, body in ((b"POST", b"hi"), (b"POST", None), (b"PATCH", b"hi"), (b"GET", b"hi")):
        async with bad_and_good(leaves) as (gate, bad, good):  # type: ignore[arg-type]
            answers = [await gate.call(method, body=body) for _ in range(2)]
            assert sorted(answer.status for answer in answers) == [200, 502], (method, body)
            assert len(bad.heads) == len(good.heads) == 1
            broken = next(answer for answer in answers if answer.status == 502)
            assert broken["X-Stoker-Error"] == "function; answer-broken" and KEY.encode() in broken.body


async def test_nothing_is_repeated_after_the_first_byte_of_an_answer() -> None:
    async def begins(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(b"HTTP/1.1 2")

    async with bad_and_good(begins) as (gate, bad, good):  # type: ignore[arg-type]
        assert sorted([(await gate.call()).status, (await gate.call()).status]) == [200, 502]
        assert len(bad.heads) == len(good.heads) == 1


async def test_a_stale_connection_costs_a_safe_call_nothing_and_says_nothing_against_its_replica() -> None:
    async def one_each(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(HELLO)
        await back.read_request(reader)  # the second one finds the connection closed

    async with gateway() as gate, back_end(one_each) as back:
        gate.deploy(back.address)
        began = asyncio.get_running_loop().time()
        for _ in range(4):
            assert (await gate.call()).status == 200
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_when_no_replica_can_be_reached_the_answer_says_so() -> None:
    async with gateway() as gate:
        gate.deploy("unix:/nowhere", timeout=1.5)
        answer = await gate.call()
        assert answer.status in (503, 504) and KEY.encode() in answer.body


# Deadlines and broken answers


async def test_a_call_that_takes_too_long_gets_504_that_names_function_and_limit() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, timeout=0.2)
        answer = await gate.call()
        assert answer.status == 504 and b"f.openfaas-fn" in answer.body and b"0.2 s" in answer.body
        await until(lambda: not back.open, "the replica to learn of it")
        gate.deploy(timeout=0.2)
        answer = await gate.call()
        assert answer.status == 504 and b"f.openfaas-fn" in answer.body and b"0.2 s" in answer.body
        assert answer["X-Stoker-Error"] == "function; timeout-waiting" and gate.codes() == {504: 2}


async def test_a_call_whose_timeout_has_passed_while_it_waited_with_a_body_leaves_its_connection_usable() -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy(timeout=0.1)
        client = await gate.client()
        assert (await client.ask(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi")).status == 504
        gate.deploy(back.address)
        assert (await client.ask(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")).status == 200


async def test_a_shorter_timeout_holds_for_new_calls_although_older_ones_run() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, timeout=30)
        older = await gate.client()
        await older.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await parked.get(0)
        gate.deploy(back.address, timeout=0.2)
        assert (await gate.call()).status == 504
        await parked.answer(0)
        assert (await older.answer()).status == 200


async def test_the_calls_of_a_removed_function_still_have_their_deadline() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, timeout=0.3)
        client = await gate.client()
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await parked.get(0)
        gate.proxy.remove(KEY)
        assert (await client.answer()).status == 504


@pytest.mark.parametrize(
    "begun",
    [
        OK + b"Content-Length: 10\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_an_answer_that_breaks_off_reaches_the_client_as_broken(begun: bytes) -> None:
    async def breaks_off(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(begun)

    async with gateway() as gate, back_end(breaks_off) as back:
        gate.deploy(back.address)
        answer = await gate.call()
        assert answer.status == 200 and not answer.whole
        assert gate.codes() == {502: 1} and set(gate.inflight.values()) == {0}


async def test_an_answer_that_takes_too_long_is_broken_off() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, timeout=0.3)
        call = asyncio.ensure_future(gate.call())
        await parked.answer(0, OK + b"Content-Length: 10\r\n\r\nhello")
        assert not (await call).whole and gate.codes() == {504: 1}


async def test_a_stream_of_events_may_be_longer_than_the_timeout_but_not_silent_for_so_long() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address, timeout=0.4)
        client = await gate.client()
        await client.send(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
        await parked.answer(0, OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.15)
            await parked.answer(0, b"6\r\ndata\n\n\r\n")
            assert b"data" in await client.reader.readuntil(b"data\n\n\r\n")
        assert await client.rest() == b"" and gate.codes() == {504: 1}


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"])
async def test_a_malformed_answer_gives_502(answer: bytes) -> None:
    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await back.read_request(reader)
        writer.write(answer)

    async with gateway() as gate, back_end(script) as back:
        gate.deploy(back.address)
        got = await gate.call(b"POST", body=b"x")
        assert got.status == 502 and got["X-Stoker-Error"].startswith("function")


# Bodies and clients


@pytest.mark.parametrize("framing", [b"Content-Length: 20\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_over_the_limit_gets_413_and_no_replica_sees_it(framing: bytes) -> None:
    parked = Parked()
    async with gateway(max_body=10) as gate, back_end(parked) as back:
        gate.deploy(back.address)
        body = b"x" * 20 if framing.startswith(b"C") else b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"
        answer = await gate.wire.ask(b"POST /function/f HTTP/1.1\r\nHost: gw\r\n%b\r\n%b" % (framing, body))
        assert answer.status == 413 and b"10 bytes" in answer.body
        assert not parked.calls and gate.codes() == {413: 1} and set(gate.inflight.values()) == {0}


async def test_a_body_that_grows_over_the_limit_after_the_answer_began_breaks_the_answer_off() -> None:
    async def early(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        await reader.read()

    async with gateway(max_body=10) as gate, back_end(early) as back:
        gate.deploy(back.address)
        client = await gate.client()
        await client.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await client.reader.readuntil(b"begun\r\n")
        await client.send(b"20\r\n" + b"x" * 32 + b"\r\n")
        assert await client.rest() == b""
        assert gate.codes() == {413: 1}


async def test_an_answer_before_the_end_of_the_request_does_not_poison_the_next_call() -> None:
    """The rest of the first body must never be read as the beginning of the next request, or the other way round."""

    async def early(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            back.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(HELLO)

    async with gateway() as gate, back_end(early) as back:
        gate.deploy(back.address)
        client = await gate.client()
        await client.send(b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 50\r\n\r\n")
        assert (await client.answer()).body == b"hello"
        assert (await gate.call()).body == b"hello"
        assert back.connections == 2
        assert [head.split(b" ")[0] for head in back.heads] == [b"POST", b"GET"]


async def test_a_caller_that_leaves_is_noticed_and_its_replica_told() -> None:
    parked = Parked()
    async with gateway() as gate, back_end(parked) as back:
        gate.deploy(back.address)
        for number, request in enumerate(
            (
                b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n",
                b"POST /function/f HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi",
            )
        ):
            client = await gate.client()
            await client.send(request)
            await parked.get(number)
            client.half_close()
            await until(lambda: not back.open, "the replica to learn of it")
        assert gate.codes() == {499: 2} and set(gate.inflight.values()) == {0}


async def test_a_call_whose_client_leaves_while_its_replica_is_dialled_leaves_nothing_behind(tmp_path: Path) -> None:
    async with gateway() as gate, back_end(always(HELLO)) as back:
        gate.deploy(back.address)
        for _ in range(20):
            client = await gate.client()
            client.writer.write(b"GET /function/f HTTP/1.1\r\nHost: gw\r\n\r\n")
            client.writer.write_eof()
        await until(lambda: gate.proxy.counters() and gate.counters().started == 20, "the calls")
        await until(lambda: gate.counters().inflight == 0, "their ends")
        assert sum(gate.codes().values()) == 20 and set(gate.inflight.values()) == {0}
        assert (await gate.call()).status == 200


# WebSocket


async def websocket_echo(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    back.heads.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n")
    while data := await reader.read(65536):
        writer.write(data)


async def test_a_websocket_passes_through_with_its_frames() -> None:
    async with gateway() as gate, back_end(websocket_echo) as back:
        gate.deploy(back.address, timeout=0.2)
        client = await gate.client()
        await client.send(
            b"GET /function/f/socket HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = await client.answer()
        assert answer.status == 101 and answer["Sec-WebSocket-Accept"] == "yes" and answer["Upgrade"] == "websocket"
        seen = fields(back.heads[0])
        assert seen["upgrade"] == "websocket" and seen["sec-websocket-version"] == "13"
        for number in range(4):
            await asyncio.sleep(0.1)  # longer than the timeout in all
            frame = b"\x81\x85\1\2\3\4" + bytes([number]) * 5
            await client.send(frame)
            assert await client.reader.readexactly(len(frame)) == frame
        assert gate.counters().inflight == 1
        await client.close()
        await until(lambda: gate.codes() == {101: 1} and not back.open, "the end of the tunnel")


async def test_a_replica_cannot_switch_protocols_unasked() -> None:
    async with gateway() as gate, back_end(websocket_echo) as back:
        gate.deploy(back.address)
        assert (await gate.call()).status == 502


# Counters


async def test_counters_are_exact_whatever_happens_to_calls() -> None:
    """Every call is counted once, by what its client got, and none is left in flight."""
    rng = random.Random(11)

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await back.read_request(reader)
            answers: list[bytes] = [
                HELLO,
                HELLO.replace(b"200 OK", b"404 No"),
                b"bad\r\n\r\n",
                OK + b"Content-Length: 9\r\n\r\nx",
                b"",
            ]
            writer.write(answers[int(head.split(b" ")[1][1:])])
            await writer.drain()
            if int(head.split(b" ")[1][1:]) > 1:
                return

    async def one(gate: Gateway, kind: int) -> int:
        answer = await gate.call(b"POST", b"/function/f/%d" % kind, body=b"x")
        return answer.status if answer.whole else 502

    async with gateway() as gate, back_end(script) as one_end, back_end(script) as other:
        gate.deploy(one_end.address, other.address, concurrency=3)
        codes = await asyncio.gather(*(one(gate, rng.randrange(5)) for _ in range(100)))
        expected = {code: codes.count(code) for code in set(codes)}
        assert gate.codes() == expected
        counters = gate.counters()
        assert (counters.started, counters.inflight) == (100, 0) and set(gate.inflight.values()) == {0}
