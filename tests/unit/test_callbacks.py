"""Callbacks between real sockets: what is sent, to whom, how often, and what receivers cannot do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from aiohttp import web
from callback_receiver import Answer, Receiver, receiver
from hypothesis import given
from hypothesis import strategies as st
from raw_http import until

from stoker_gateway.queue.addresses import Guard
from stoker_gateway.queue.callback_request import Callback
from stoker_gateway.queue.callbacks import Callbacks, Times, Tried, in_cluster, pause_after


def example_names(host: str) -> list[str]:
    if host.endswith(".example"):
        return ["127.0.0.1"]
    raise OSError(-2, "Name or service not known")


LAPTOP = Guard(private_allowed=True, resolver=example_names)
QUICK = Times(attempts=3, first=0.01, most=0.02, answer=5.0)


@pytest.fixture(scope="module", autouse=True)
def laptop() -> Iterator[None]:
    yield
    LAPTOP.close()


@pytest.fixture
async def callbacks() -> AsyncIterator[Callbacks]:
    async with Callbacks(LAPTOP, times=QUICK) as made:
        yield made


@asynccontextmanager
async def guarded(guard: Guard, times: Times = QUICK) -> AsyncIterator[Callbacks]:
    async with Callbacks(guard, times=times) as made:
        yield made
    guard.close()


def answer_of(url: str, body: bytes | Path = b"done", **fields: str) -> Callback:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return Callback(url, "call-1", "greet.openfaas-fn", 200, 1.5, named, body)


async def test_the_receiver_gets_the_answer_and_what_the_contract_says_about_it(callbacks: Callbacks) -> None:
    async with receiver() as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url("/hook?a=%2F"), Content_Type="text/x", X_Own="ä"))
    assert (delivery.delivered, delivery.attempts, delivery.status, delivery.reason) == (True, 1, 204, "")
    (got,) = hooks.got
    assert (got.method, got.path, got.body) == ("POST", "/hook?a=%2F", b"done")
    assert dict(got.headers) == {
        "Host": f"127.0.0.1:{hooks.port}",
        "Content-Type": "text/x",
        "X-Own": "ä",
        "Content-Length": "4",
        "User-Agent": got.headers["User-Agent"],
        "X-Call-Id": "call-1",
        "X-Duration-Seconds": "1.500000",
        "X-Function-Name": "greet.openfaas-fn",
        "X-Function-Status": "200",
    }
    assert got.headers["User-Agent"].startswith("stoker-queue-worker/")


async def test_an_answer_can_neither_forge_our_headers_nor_break_the_framing(callbacks: Callbacks) -> None:
    forged = [
        (b"x-function-status", b"200"),
        (b"X-STOKER-SIGNATURE", b"sha256=00"),
        (b"Host", b"elsewhere"),
        (b"Transfer-Encoding", b"chunked"),
        (b"content-length", b"1"),
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Expect", b"100-continue"),
        (b"X-Callback-Url", b"http://a.example/"),
        (b"X-Latin", b"\xe4"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]
    async with receiver() as hooks:
        callback = replace(answer_of(hooks.url()), status=500, fields=forged)
        assert (await callbacks.deliver(callback)).delivered
    headers = hooks.got[0].headers
    assert headers["X-Function-Status"] == "500"
    assert headers["Content-Length"] == "4"
    assert headers["Host"] == f"127.0.0.1:{hooks.port}"
    assert headers["X-Latin"] == "ä"
    assert headers.getall("Set-Cookie") == ["a=1", "b=2"]
    dropped = {"X-Stoker-Signature", "Transfer-Encoding", "Connection", "X-Hop", "Expect", "X-Callback-Url"}
    assert not [name for name in dropped if name in headers]


@pytest.mark.parametrize("body", [b"", b"done", b"x" * 200_000])
async def test_a_receiver_can_verify_the_signature_with_a_few_lines(body: bytes, callbacks: Callbacks) -> None:
    async with receiver() as hooks:
        assert (await callbacks.deliver(answer_of(hooks.url(), body), secret=b"s3cret")).delivered
    (got,) = hooks.got
    text = b".".join(got.headers[name].encode() for name in ("X-Stoker-Timestamp", "X-Call-Id", "X-Function-Status"))
    expected = hmac.new(b"s3cret", text + b"." + got.body, hashlib.sha256).hexdigest()
    assert got.headers["X-Stoker-Signature"] == "sha256=" + expected
    assert abs(int(got.headers["X-Stoker-Timestamp"]) - time.time()) < 30


async def test_a_body_of_10_mb_arrives_from_memory_and_from_a_file(callbacks: Callbacks, tmp_path: Path) -> None:
    body = bytes(range(256)) * 40_000
    (tmp_path / "answer").write_bytes(body)

    async def hashing(request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        digests.append((request.content_length, digest.hexdigest()))
        return web.Response()

    digests: list[tuple[int | None, str]] = []
    async with receiver(hashing, hashing) as hooks:
        for each in (body, tmp_path / "answer"):
            assert (await callbacks.deliver(answer_of(hooks.url(), each), secret=b"s")).delivered
    assert digests == [(len(body), hashlib.sha256(body).hexdigest())] * 2


async def test_a_file_that_has_gone_is_a_reason_and_no_crash(callbacks: Callbacks, tmp_path: Path) -> None:
    async with receiver() as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url(), tmp_path / "gone"))
    assert not delivery.delivered
    assert "gone" in delivery.reason


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_keeps_method_and_body(status: int, callbacks: Callbacks) -> None:
    async with receiver((status, {"Location": "/next?x=1"})) as hooks:
        assert (await callbacks.deliver(answer_of(hooks.url()), secret=b"s")).delivered
    assert [(got.method, got.path, got.body) for got in hooks.got] == [("POST", "/", b"done")] + [
        ("POST", "/next?x=1", b"done")
    ]
    assert hooks.got[0].headers["X-Stoker-Signature"] == hooks.got[1].headers["X-Stoker-Signature"]


async def test_five_redirects_are_followed_and_a_loop_is_not(callbacks: Callbacks) -> None:
    again: Answer = (307, {"Location": "/"})
    async with receiver(*[again] * 5) as hooks:
        assert (await callbacks.deliver(answer_of(hooks.url()))).delivered
    async with receiver(*[again] * 50) as loop:
        delivery = await callbacks.deliver(answer_of(loop.url()))
    assert (delivery.delivered, delivery.attempts) == (False, 1)
    assert "redirects more than 5 times" in delivery.reason
    assert len(loop.got) == 6


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://inner.example/", "inner.example is 127.0.0.2"),
        ("http://127.0.0.2/", "not in the operator's list|not allowed"),
        ("file:///etc/passwd", "write http://"),
        ("http://user:pw@hooks.example/", "user name"),
        ("http://[", "no URL|host must be"),
        ("http://2130706434/", "neither a host name"),
    ],
)
async def test_a_redirect_leads_nowhere_that_the_first_address_may_not(location: str, reason: str) -> None:
    names = {"hooks.example": ["127.0.0.1"], "inner.example": ["127.0.0.2"]}
    guard = Guard(allow=["127.0.0.1"], resolver=names.__getitem__)
    async with receiver() as hooks, receiver(host="127.0.0.2", port=hooks.port) as inner, guarded(guard) as callbacks:
        url = location.replace(".example/", f".example:{hooks.port}/").replace("0.2/", f"0.2:{hooks.port}/")
        hooks.answers.append((307, {"Location": url}))
        delivery = await callbacks.deliver(answer_of(hooks.url(host="hooks.example")))
    assert not delivery.delivered
    assert any(part in delivery.reason for part in reason.split("|")), delivery.reason
    assert (len(hooks.got), inner.got, delivery.attempts) == (1, [], 1)


async def test_the_address_that_is_checked_is_the_one_that_is_called() -> None:
    """The name's server says something else each time it is asked."""
    turns = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]] * 10
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return turns[len(asked) - 1]

    guard = Guard(allow=["127.0.0.1"], resolver=rebinding)
    async with receiver() as hooks, receiver(host="127.0.0.2", port=hooks.port) as inner, guarded(guard) as callbacks:

        async def closing(request: web.Request) -> web.Response:
            return web.Response(headers={"Connection": "close"})

        hooks.answers += [closing] * 30
        deliveries = [await callbacks.deliver(answer_of(hooks.url(host="a.example"))) for _ in range(30)]
    assert [each.delivered for each in deliveries] == [True, False, True] * 10
    assert (len(asked), len(hooks.got), inner.got) == (30, 20, [])


async def test_without_a_word_of_the_operator_nothing_on_this_machine_is_called() -> None:
    guard = Guard()
    async with receiver() as hooks, guarded(guard) as callbacks:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            delivery = await callbacks.deliver(answer_of(hooks.url(host=host)))
            assert (delivery.delivered, delivery.attempts) == (False, 1)
            assert "--allow-private-callbacks" in delivery.reason
    assert not hooks.got


@pytest.mark.parametrize("url", ["", "nonsense", "http://127.1/", "ftp://a.example/", "http://a@b.example/"])
async def test_a_url_that_slipped_into_the_queue_is_a_reason_and_no_crash(url: str, callbacks: Callbacks) -> None:
    delivery = await callbacks.deliver(answer_of(url))
    assert (delivery.delivered, delivery.attempts) == (False, 1)
    assert "callback URL" in delivery.reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_receiver_in_trouble_is_asked_again(status: int, callbacks: Callbacks) -> None:
    async with receiver(status, status) as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert (delivery.delivered, delivery.attempts, len(hooks.got)) == (True, 3, 3)
    assert {got.headers["X-Call-Id"] for got in hooks.got} == {"call-1"}
    async with receiver(*[status] * 9) as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert (delivery.delivered, delivery.attempts, delivery.status, len(hooks.got)) == (False, 3, status, 3)
    assert f"answered {status}" in delivery.reason


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 304, 305])
async def test_a_receiver_that_refuses_is_not_asked_again(status: int, callbacks: Callbacks) -> None:
    async with receiver(status) as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert (delivery.delivered, delivery.attempts, delivery.status, len(hooks.got)) == (False, 1, status, 1)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 303])
async def test_a_receiver_that_has_taken_it_is_asked_once(status: int, callbacks: Callbacks) -> None:
    async with receiver((status, {"Location": "/elsewhere"})) as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert (delivery.delivered, delivery.status, len(hooks.got)) == (True, status, 1)


async def test_connections_are_refused_until_the_receiver_is_up_again() -> None:
    lookups: list[str] = []

    def noting(host: str) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    async with receiver() as first:
        port = first.port
    guard = Guard(private_allowed=True, resolver=noting)
    patient = Times(attempts=500, first=0.02, most=0.02)
    async with guarded(guard, patient) as callbacks:
        delivering = asyncio.create_task(callbacks.deliver(answer_of(f"http://a.example:{port}/")))
        await until(lambda: len(lookups) >= 3, "three attempts")
        async with receiver(port=port) as hooks:
            delivery = await delivering
    assert delivery.delivered
    assert delivery.attempts >= 3
    assert len(hooks.got) == 1


async def test_the_time_of_a_delivery_is_bounded() -> None:
    patient = Times(attempts=1000, first=0.05, most=0.05, total=0.3)
    async with receiver(*[503] * 100) as hooks, Callbacks(LAPTOP, times=patient) as callbacks:
        begun = time.monotonic()
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert not delivery.delivered
    assert 2 <= delivery.attempts == len(hooks.got) < 20
    assert time.monotonic() - begun < 2


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e12), st.integers())
def test_pauses_are_bounded_and_end(attempt: int, asked: float | None, seed: int) -> None:
    times = Times()
    pause = pause_after(attempt, Tried(503, "busy", True, asked), times, Random(seed))
    assert (pause is None) == (attempt >= times.attempts)
    assert pause is None or times.first / 2 <= pause <= times.most
    assert pause_after(attempt, Tried(404, "gone"), times, Random(seed)) is None


async def test_many_at_once_arrive_once_each(callbacks: Callbacks) -> None:
    async with receiver() as hooks:
        sent = [replace(answer_of(hooks.url()), call_id=f"call-{number}") for number in range(500)]
        deliveries = await asyncio.gather(*map(callbacks.deliver, sent))
    assert all(each.delivered and each.attempts == 1 for each in deliveries)
    assert sorted(got.headers["X-Call-Id"] for got in hooks.got) == sorted(each.call_id for each in sent)


async def test_one_slow_receiver_holds_up_no_other() -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    callbacks = Callbacks(LAPTOP, times=QUICK, parallel=50, per_host=5)
    async with receiver(*[slow] * 100) as stuck, receiver() as hooks, callbacks:
        waiting = [asyncio.create_task(callbacks.deliver(answer_of(stuck.url()))) for _ in range(100)]
        await until(lambda: len(stuck.got) == 5, "five requests at the slow receiver")
        async with asyncio.timeout(2):
            others = await asyncio.gather(*[callbacks.deliver(answer_of(hooks.url())) for _ in range(100)])
        assert len(stuck.got) == 5
        release.set()
        late = await asyncio.gather(*waiting)
    assert all(each.delivered for each in [*others, *late])


async def test_a_delivery_can_be_cancelled(callbacks: Callbacks) -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with receiver(never) as hooks:
        delivering = asyncio.create_task(callbacks.deliver(answer_of(hooks.url())))
        await until(lambda: hooks.got, "the request")
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering


@asynccontextmanager
async def proxy_on(path: Path, *answers: Answer) -> AsyncIterator[tuple[Receiver, Callbacks]]:
    """A server in the place of the platform's proxy, and callbacks that know it."""
    made = Callbacks(LAPTOP, inside=in_cluster([path]), times=QUICK)
    async with receiver(*answers, path=path) as proxy, made as callbacks:
        yield proxy, callbacks


@pytest.mark.parametrize("host", ["gateway.openfaas", "gateway.openfaas.svc", "Gateway.OpenFaaS.svc.cluster.local"])
@pytest.mark.parametrize("path", ["/function/next", "/async-function/next.dev/a?b=c"])
async def test_a_callback_to_a_function_goes_to_the_platforms_own_proxy(host: str, path: str, tmp_path: Path) -> None:
    async with proxy_on(tmp_path / "proxy.sock") as (proxy, callbacks):
        assert (await callbacks.deliver(answer_of(f"http://{host}:8080{path}"))).delivered
    (got,) = proxy.got
    assert (got.method, got.path, got.body, got.headers["X-Call-Id"]) == ("POST", path, b"done", "call-1")


@pytest.mark.parametrize(
    "path",
    ["", "/", "/system/functions", "/function", "/function/", "/function/../system/functions", "//function/next"]
    + ["/function/%2e%2e/system/functions", "/function/next/%2E%2E/x", "/Function/next", "/healthz"],
)
async def test_a_callback_is_no_way_to_the_platforms_api(path: str, tmp_path: Path) -> None:
    async with proxy_on(tmp_path / "proxy.sock") as (proxy, callbacks):
        delivery = await callbacks.deliver(answer_of(f"http://gateway.openfaas:8080{path}"))
    assert not delivery.delivered
    assert "no function of this platform" in delivery.reason
    assert not proxy.got


async def test_a_redirect_from_outside_does_not_lead_inside(tmp_path: Path) -> None:
    inside: Answer = (307, {"Location": "http://gateway.openfaas:8080/function/x"})
    async with proxy_on(tmp_path / "proxy.sock") as (proxy, callbacks), receiver(*[inside] * 3) as hooks:
        delivery = await callbacks.deliver(answer_of(hooks.url()))
    assert not delivery.delivered
    assert (len(hooks.got), proxy.got) == (3, [])


async def test_several_proxies_take_turns(tmp_path: Path) -> None:
    paths = [tmp_path / "a.sock", tmp_path / "b.sock"]
    callbacks = Callbacks(LAPTOP, inside=in_cluster(paths), times=QUICK)
    async with receiver(503, 503, path=paths[0]) as one, receiver(503, path=paths[1]) as two, callbacks:
        await callbacks.deliver(answer_of("http://gateway.openfaas:8080/function/next"))
    assert one.got
    assert two.got
