"""Handlers of every shape, as their callers and their logs see them."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from loads import call, calls, elapsed_under, request
from running_platform import Platform, wait_for

SHAPES = """
import asyncio, inspect, json, sys, time

async def slowly(event):
    await asyncio.sleep(float(event.text))
    return "done"

def blocks(event):
    time.sleep(float(event.text))
    return "done"

def fails(event):
    print("about to fail")
    raise ValueError("the cause")

def exits(event):
    sys.exit("no more")

def stamps():
    for _ in range(40):
        yield f"{time.monotonic()}\\n"
        time.sleep(0.02)

async def async_stamps():
    for _ in range(40):
        yield f"{time.monotonic()}\\n"
        await asyncio.sleep(0.02)

def breaks():
    yield "some"
    raise ValueError("in the middle")

class Watched:
    def __init__(self, name):
        self.name = name
    def __iter__(self):
        try:
            while True:
                yield "x" * 1000
                time.sleep(0.01)
        finally:
            print(f"closed the {self.name}")
    async def __aiter__(self):
        try:
            while True:
                yield "x" * 1000
                await asyncio.sleep(0.01)
        finally:
            print(f"closed the {self.name}")

async def waits(event):
    print("waiting")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise

BODIES = {
    "/echo": lambda event: event.body,
    "/blocks": blocks,
    "/fails": fails,
    "/exits": exits,
    "/stamps": lambda event: stamps(),
    "/async-stamps": lambda event: async_stamps(),
    "/breaks": lambda event: breaks(),
    "/closes": lambda event: iter(Watched("generator")),
    "/async-closes": lambda event: Watched("async generator").__aiter__(),
    "/prints": lambda event: print(event.text) or "printed",
    "/path": lambda event: json.dumps([event.method, event.path, event.raw_query]),
}
"""
SYNC = SHAPES + "\ndef handle(event, context):\n    return BODIES[event.path](event)\n"
ASYNC = (
    SHAPES
    + """
BODIES |= {"/slowly": slowly, "/waits": waits}

async def handle(event, context):
    answer = BODIES[event.path](event)
    return await answer if inspect.iscoroutine(answer) else answer
"""
)
COUNTING = """
import threading, time

lock, running, most = threading.Lock(), 0, 0

def handle(event, context):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(float(event.text or 0))
    with lock:
        running -= 1
    return str(most)
"""


@pytest.fixture(scope="module")
def functions(platform: Platform) -> Iterator[Platform]:
    """`sync` and `async`, whose path says what they do; both end calls after two seconds."""
    for name, code in (("sync", SYNC), ("async", ASYNC)):
        platform.deploy(name, code, annotations={"stoker.dev/timeout": "2s"})
    yield platform
    for name in ("sync", "async"):
        platform.client.remove(name)


async def test_100_async_calls_that_sleep_a_second_end_together(functions: Platform) -> None:
    with elapsed_under(1.5):
        answers = await calls(functions.http, "async", 100, b"1", path="/slowly")
    assert Counter(answer.text for answer in answers) == {"done": 100}
    assert len(functions.replicas("async")) == 1


async def test_sync_handlers_that_block_do_not_block_health_and_other_calls(functions: Platform) -> None:
    blocked = asyncio.gather(*(calls(functions.http, "sync", 1, b"1", path="/blocks") for _ in range(20)))
    await asyncio.to_thread(_wait_for_inflight, functions, 20)
    with elapsed_under(0.5):
        for path in ("/_/health", "/_/ready"):
            assert (await call(functions.http, "sync", path=path, method="GET")).status == 200
        assert (await call(functions.http, "sync", b"x", path="/echo")).body == b"x"
    assert {answer.text for (answer,) in await blocked} == {"done"}


@pytest.mark.parametrize("name", ["sync", "async"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_random_body_of_5_mb_comes_back_byte_for_byte(functions: Platform, name: str, chunked: bool) -> None:
    body = os.urandom(5_000_000)
    connection = http.client.HTTPConnection(*functions.http, timeout=20)
    pieces = iter([body[:10], body[10:4_000_000], body[4_000_000:]]) if chunked else body
    connection.request("POST", f"/function/{name}/echo", pieces)
    response = connection.getresponse()
    assert (response.status, response.read() == body) == (200, True)
    connection.close()


@pytest.mark.parametrize("name", ["sync", "async"])
@pytest.mark.parametrize("path", ["/stamps", "/async-stamps"])
def test_a_yielded_chunk_is_at_the_client_in_under_20_ms(functions: Platform, name: str, path: str) -> None:
    delays = []
    connection = http.client.HTTPConnection(*functions.http, timeout=20)
    connection.request("POST", f"/function/{name}{path}")
    response = connection.getresponse()
    while line := response.readline():
        delays.append(time.monotonic() - float(line))
    connection.close()
    assert len(delays) == 40
    assert sorted(delays)[-3] < 0.020, delays  # two of 40 may meet a busy machine


@pytest.mark.parametrize("name", ["sync", "async"])
def test_an_exception_is_a_500_with_a_short_body_and_a_traceback_in_the_log(functions: Platform, name: str) -> None:
    answer = functions.call(name, path="/fails", headers={"X-Call-Id": f"fails-{name}"})
    assert answer.status == 500
    assert answer.headers["x-call-id"] == f"fails-{name}"
    assert answer.headers["x-stoker-error"].startswith("function")
    assert "Traceback" not in answer.text and "the cause" not in answer.text and len(answer.body) < 200
    lines = [line.text for line in functions.logs(name) if line.call == f"fails-{name}"]
    assert lines[0] == "about to fail\n"
    assert lines[-1] == "ValueError: the cause\n"
    assert any('raise ValueError("the cause")' in line for line in lines)
    assert not any("stoker_watchdog" in line for line in lines)


def test_a_handler_that_exits_fails_its_call_and_no_more(functions: Platform) -> None:
    before = functions.replicas("sync"), functions.replicas("async")
    for name in ("sync", "async"):
        assert functions.call(name, path="/exits").status == 500
    assert (functions.replicas("sync"), functions.replicas("async")) == before


@pytest.mark.parametrize("name", ["sync", "async"])
def test_a_stream_that_breaks_is_seen_as_broken(functions: Platform, name: str) -> None:
    with pytest.raises(http.client.IncompleteRead):
        functions.call(name, path="/breaks")


@pytest.mark.parametrize(("name", "path"), [("sync", "/blocks"), ("async", "/slowly")])
@pytest.mark.slow
def test_a_call_beyond_the_timeout_is_a_504_that_names_the_limit(functions: Platform, name: str, path: str) -> None:
    with elapsed_under(3):
        answer = functions.call(name, b"5", path=path)
    assert answer.status == 504
    assert "timeout" in answer.text and "2 s" in answer.text
    assert answer.headers["x-stoker-error"] == "function; timeout"


def test_a_client_that_leaves_cancels_an_async_handler(functions: Platform) -> None:
    with _begun(functions, "async", "/waits", "leaves-1"):
        wait_for(lambda: "waiting\n" in _printed(functions, "async", "leaves-1"), "the handler")
    wait_for(lambda: "cancelled\n" in _printed(functions, "async", "leaves-1"), "the cancellation")


@pytest.mark.parametrize(
    ("name", "path", "line"),
    [
        ("sync", "/closes", "closed the generator\n"),
        ("sync", "/async-closes", "closed the async generator\n"),
        ("async", "/closes", "closed the generator\n"),
        ("async", "/async-closes", "closed the async generator\n"),
    ],
)
def test_a_client_that_leaves_closes_the_generator(functions: Platform, name: str, path: str, line: str) -> None:
    id = f"leaves-{name}-{path[1:]}"
    with _begun(functions, name, path, id) as sock:
        assert sock.recv(1000)
    wait_for(lambda: line in _printed(functions, name, id), "the generator's end")


def test_what_a_handler_prints_is_in_the_log_with_the_call_id(functions: Platform) -> None:
    for name in ("sync", "async"):
        for number in range(3):
            functions.call(name, f"line {number}".encode(), path="/prints", headers={"X-Call-Id": f"p-{number}"})
        said = {(line.call, line.text) for line in functions.logs(name)}
        assert {(f"p-{number}", f"line {number}\n") for number in range(3)} <= said


def test_method_path_and_query_reach_the_handler_as_they_were_sent(platform: Platform) -> None:
    platform.deploy("verbatim", "def handle(event, context):\n    return [event.method, event.path, event.raw_query]\n")
    answer = platform.call("verbatim.openfaas-fn", path="/a%2Fb/../c//d?x=%20&y=+", method="PATCH")
    assert answer.json() == ["PATCH", "/a%2Fb/../c//d", "x=%20&y=+"]


async def test_max_inflight_refuses_what_is_over_it(platform: Platform) -> None:
    platform.deploy("limited", COUNTING, env_vars={"max_inflight": "2"})
    answers = await calls(platform.http, "limited", 10, b"0.5")
    assert Counter(answer.status for answer in answers) == {200: 2, 429: 8}
    assert {answer.text for answer in answers if answer.status == 200} <= {"1", "2"}
    assert platform.call("limited").status == 200


async def test_concurrency_1_lets_a_handler_never_see_two_calls_at_once(platform: Platform) -> None:
    platform.deploy("single", COUNTING, annotations={"stoker.dev/concurrency": "1"})
    answers = await calls(platform.http, "single", 30, b"0.01")
    assert Counter((answer.status, answer.text) for answer in answers) == {(200, "1"): 30}


async def test_concurrency_1_holds_over_two_replicas_and_uses_both(platform: Platform) -> None:
    platform.deploy("pair", COUNTING, annotations={"stoker.dev/concurrency": "1"})
    platform.scale("pair", 2)
    with elapsed_under(1.8):
        answers = await calls(platform.http, "pair", 10, b"0.2")
    assert Counter((answer.status, answer.text) for answer in answers) == {(200, "1"): 10}


def _wait_for_inflight(platform: Platform, number: int) -> None:
    text = f"http_requests_in_flight {number}"
    wait_for(lambda: text in platform.call("sync", path="/_/metrics", method="GET").text, f"{number} calls")


def _begun(platform: Platform, name: str, path: str, id: str) -> socket.socket:
    """A call that was sent; its answer is not read, and leaving the block leaves the call."""
    sock = socket.create_connection(platform.http)
    sock.sendall(request(name, path=path, headers={"X-Call-Id": id}))
    return sock


def _printed(platform: Platform, name: str, id: str) -> list[str]:
    return [line.text for line in platform.logs(name) if line.call == id]
