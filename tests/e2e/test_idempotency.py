"""`Idempotency-Key`: the same request runs once, queued or synchronous, through other proxies, kills and restarts."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running_platform import Answer, Platform, wait_for

from stoker_gateway.queue.streams import ensure_streams
from stoker_gateway.queue.subjects import CALLS, KEYS
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.requests import ask
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.errors import StokerError
from stoker_sdk.messages import CallStatus

COUNTED = """
import json, os, time

def handle(event, context):
    print("ran", event.text[:40])
    asked = json.loads(event.text or "{}")
    time.sleep(asked.get("seconds", 0))
    if asked.get("dies"):
        os._exit(1)
    headers = {"Content-Type": "application/x-answer", "X-Own": str(time.time())}
    return {"statusCode": asked.get("status", 200), "headers": headers, "body": "x" * asked.get("size", 1)}
"""
EVENTS = """
import json, time

def handle(event, context):
    count = json.loads(event.text)["count"]

    def events():
        for _ in range(count):
            yield "data: x\\n\\n"
            time.sleep(0.05)

    return {"statusCode": 200, "headers": {"Content-Type": "text/event-stream"}, "body": events()}
"""
DIES = {"dies": True}
IDEMPOTENT = {"stoker.dev/idempotent": "true"}
_numbers = iter(range(10**6))


@pytest.fixture(scope="module")
def counted(platform: Platform) -> Platform:
    """A platform with two proxies; each request comes on a connection of its own, so both take some."""
    platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    platform.deploy("dying", COUNTED, annotations=IDEMPOTENT)
    platform.deploy("plain", COUNTED)
    return platform


def fresh_key() -> str:
    return f"key-{time.time_ns()}-{next(_numbers)}"


def body(**asked: object) -> bytes:
    """A body that no other test sends."""
    return json.dumps({"n": next(_numbers), **asked}).encode()


def later(platform: Platform, key: str, content: bytes, *, name: str = "counted", path: str = "") -> Answer:
    return platform.call_later(name, content, path=path, headers={"Idempotency-Key": key})


def now(platform: Platform, key: str, content: bytes, *, name: str = "counted", **more: Any) -> Answer:
    return platform.call(name, content, headers={"Idempotency-Key": key}, **more)


def runs(platform: Platform, content: bytes, name: str = "counted") -> int:
    return sum(line.text.strip() == f"ran {content.decode()[:40]}" for line in platform.logs(name))


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers.get("x-stoker-error", "")


def ended(platform: Platform, id: str) -> CallStatus:
    def status() -> CallStatus | None:
        try:
            status = platform.client.call_status(id)
        except StokerError:  # the platform is being started again, or the call is not stored yet
            return None
        return status if status.state in ("done", "dead", "cancelled") else None

    return wait_for(status, f"the end of call {id}", 30)


# Queued


def test_a_queued_call_with_the_same_key_is_stored_once(counted: Platform) -> None:
    key, content = fresh_key(), body()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: later(counted, key, content), range(32)))
    assert {answer.status for answer in answers} == {202}
    [id] = {answer.headers["x-call-id"] for answer in answers}
    assert sum("x-stoker-repeated" not in answer.headers for answer in answers) == 1
    assert ended(counted, id).state == "done"
    again = later(counted, key, content)
    assert (again.headers["x-call-id"], again.headers["x-stoker-repeated"]) == (id, "true")
    counted.deploy("quick", COUNTED)
    other = counted.call_later("quick", content, headers={"Idempotency-Key": key})
    assert other.headers["x-call-id"] != id  # keys are a function's own
    ended(counted, other.headers["x-call-id"])
    assert runs(counted, content) == 1 and runs(counted, content, "quick") == 1


def test_another_request_with_the_key_is_refused(counted: Platform) -> None:
    for send in (later, now):
        key, content = fresh_key(), body()
        assert send(counted, key, content, path="/a?b=1").status in (200, 202)
        for other in (
            send(counted, key, content + b" ", path="/a?b=1"),
            send(counted, key, content, path="/a?b=2"),
            send(counted, key, content, path="/b?b=1"),
            (now if send is later else later)(counted, key, content, path="/a?b=1"),
        ):
            assert code(other) == (422, "client; key-reused") and "new key" in other.text
    assert now(counted, key, content, path="/a?b=1", method="PUT").status == 422


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb"])
def test_bad_keys_are_refused(counted: Platform, key: bytes) -> None:
    for route in ("async-function", "function"):
        answer = raw(counted, route, b"Idempotency-Key: %b\r\n" % key)
        assert b" 400 " in answer and b"client; bad-header" in answer and b"1 to 255 bytes" in answer
        twice = raw(counted, route, b"Idempotency-Key: a\r\nidempotency-key: a\r\n")
        assert b" 400 " in twice and b"send one" in twice
    assert b" 200 " in raw(counted, "function", b"Idempotency-Key: \xe9" + b"x" * 254 + b"\r\n")


def raw(platform: Platform, route: str, lines: bytes) -> bytes:
    with socket.create_connection(platform.http, 30) as sock:
        head = b"POST /%b/counted HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % route.encode()
        sock.sendall(head + lines + b"Content-Length: 0\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


# Synchronous


def test_a_synchronous_call_with_the_same_key_gets_the_stored_answer(counted: Platform) -> None:
    key, content = fresh_key(), body(status=201, size=1000)
    first = now(counted, key, content)
    assert first.status == 201 and "x-stoker-repeated" not in first.headers
    for _ in range(6):
        again = now(counted, key, content)
        assert again.headers.pop("x-stoker-repeated") == "true"
        assert again == first
    assert runs(counted, content) == 1


def test_answers_of_every_framing_are_given_again_as_they_were(counted: Platform) -> None:
    key, content = fresh_key(), body()
    for method in ("HEAD", "GET", "DELETE"):
        first, again = (now(counted, key + method, content, method=method) for _ in range(2))
        assert again.headers.pop("x-stoker-repeated") == "true" and again == first
    key, empty = fresh_key(), body(status=204, size=0)
    assert [now(counted, key, empty).status for _ in range(2)] == [204, 204]
    head = b"POST /function/counted HTTP/1.1\r\nHost: x\r\nIdempotency-Key: " + fresh_key().encode()
    chunked = head + b"\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for _ in range(2):
        with socket.create_connection(counted.http, 30) as sock:
            sock.sendall(chunked)
            assert b" 200 " in b"".join(iter(lambda: sock.recv(65536), b""))


def test_while_the_first_runs_the_second_is_told_so(counted: Platform) -> None:
    key, content = fresh_key(), body(seconds=1.5)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(now, counted, key, content)
        wait_for(lambda: runs(counted, content), "the first to run")
        second = now(counted, key, content)
        assert code(second) == (409, "client; still-running") and second.headers["retry-after"] == "1"
        assert first.result().status == 200
    assert now(counted, key, content).headers["x-stoker-repeated"] == "true"
    assert runs(counted, content) == 1


def test_a_client_that_leaves_finds_the_answer_when_it_comes_back(counted: Platform) -> None:
    key, content = fresh_key(), body(seconds=1)
    leave(counted, key, content)
    answer = wait_for(lambda: settled(now(counted, key, content)), "the answer")
    assert answer.status == 200 and answer.headers["x-stoker-repeated"] == "true"
    assert runs(counted, content) == 1


def leave(platform: Platform, key: str, content: bytes) -> None:
    """Call, and hang up when it runs."""
    connection = http.client.HTTPConnection(*platform.http)
    connection.request("POST", "/function/counted", content, {"Idempotency-Key": key})
    wait_for(lambda: runs(platform, content), "the call to run")
    connection.close()


def settled(answer: Answer) -> Answer | None:
    return None if answer.status == 409 else answer


@pytest.mark.parametrize(
    ("name", "asked"), [("counted", {"status": 503}), ("counted", {"status": 429}), ("dying", DIES)]
)
def test_what_has_no_answer_binds_nobody(counted: Platform, name: str, asked: dict[str, Any]) -> None:
    key, content = fresh_key(), body(**asked)
    for number in (1, 2):
        counted.wait_ready(name)
        answer = now(counted, key, content, name=name)
        assert answer.status == asked.get("status", 502) and "x-stoker-repeated" not in answer.headers
        assert runs(counted, content, name) == number


def test_an_error_of_the_function_is_an_answer(counted: Platform) -> None:
    key, content = fresh_key(), body(status=500)
    assert [now(counted, key, content).status for _ in range(3)] == [500] * 3
    assert runs(counted, content) == 1


def test_a_large_answer_is_passed_on_and_not_kept(counted: Platform) -> None:
    limit = 1024 * 1024
    key, content = fresh_key(), body(size=limit)
    assert [len(now(counted, key, content).body) for _ in range(2)] == [limit, limit]
    key, content = fresh_key(), body(size=8 * limit)
    first, second = now(counted, key, content), now(counted, key, content)
    assert len(first.body) == 8 * limit and str(limit) in first.headers["x-stoker-not-kept"]
    assert code(second) == (409, "client; answer-not-kept") and "retry-after" not in second.headers
    assert runs(counted, content) == 1


def test_a_large_answer_that_nobody_waits_for_binds_nobody(counted: Platform) -> None:
    key, content = fresh_key(), body(seconds=1, size=8 * 1024 * 1024)
    leave(counted, key, content)
    answer = wait_for(lambda: settled(now(counted, key, content)), "an answer")
    assert answer.status == 200 and len(answer.body) == 8 * 1024 * 1024
    assert runs(counted, content) == 2


def test_a_stream_of_events_is_passed_on_as_it_comes(counted: Platform) -> None:
    counted.deploy("events", EVENTS, annotations=IDEMPOTENT)
    key, content = fresh_key(), body(count=3)
    first = now(counted, key, content, name="events")
    assert first.body == b"data: x\n\n" * 3 and "stream" in first.headers["x-stoker-not-kept"]
    assert code(now(counted, key, content, name="events")) == (409, "client; answer-not-kept")
    endless, key = body(count=10**6), fresh_key()
    connection = http.client.HTTPConnection(*counted.http, timeout=30)
    connection.request("POST", "/function/events", endless, {"Idempotency-Key": key})
    assert connection.getresponse().read(9) == b"data: x\n\n"  # it comes, though it never ends
    connection.close()
    # Nobody has a whole answer, so the key is free; the next client leaves as well.
    wait_for(lambda: _first_piece(counted, key, endless) == b"data", "the key to be free")


def _first_piece(platform: Platform, key: str, content: bytes) -> bytes:
    connection = http.client.HTTPConnection(*platform.http, timeout=30)
    try:
        connection.request("POST", "/function/events", content, {"Idempotency-Key": key})
        return connection.getresponse().read(4)
    finally:
        connection.close()


def test_other_functions_and_queued_calls_of_this_one_get_the_header(counted: Platform) -> None:
    key, content = fresh_key(), body()
    assert [now(counted, key, content, name="plain").status for _ in range(2)] == [200, 200]
    assert runs(counted, content, "plain") == 2
    id = later(counted, key, content).headers["x-call-id"]
    assert ended(counted, id).status == 200  # the worker's own call is not taken for another request with the key


def test_a_body_that_is_too_large_is_refused(counted: Platform) -> None:
    limit = 16 * 1024 * 1024
    answer = now(counted, fresh_key(), b"x" * (limit + 1))
    assert answer.status == 413 and str(limit) in answer.text


# Kills


def test_keys_outlast_a_kill_of_everything(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(proxies=2)
    platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    key, content = fresh_key(), body()
    id = later(platform, key, content).headers["x-call-id"]
    ended(platform, id)
    first = now(platform, "s" + key, content)
    platform.kill_everything()
    platform.start()
    platform.wait_ready("counted")
    assert later(platform, key, content).headers["x-call-id"] == id
    again = now(platform, "s" + key, content)
    assert again.headers.pop("x-stoker-repeated") == "true" and again == first
    assert runs(platform, content) == 2  # one of each


class Broker:
    """The platform's broker, as its operator sees it."""

    def __init__(self, platform: Platform) -> None:
        self._file = platform.run_folder / "broker.json"

    def do(self, work: Callable[[Any], Any]) -> Any:
        async def run() -> Any:
            client = await connect(read_settings(self._file), "test")
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())

    def count(self, stream: str) -> int:
        async def work(client: Any) -> int:
            return int((await client.jetstream().stream_info(stream)).state.messages)

        return int(self.do(work))


def test_a_proxy_killed_between_key_and_call_leaves_no_key_without_a_call(own_platform: Platform) -> None:
    own_platform.deploy("counted", COUNTED)
    broker = Broker(own_platform)
    key, content = fresh_key(), body()
    # No stream takes calls for a moment, so that the proxy waits with the key stored and the call not.
    assert broker.do(lambda client: ask(client, f"STREAM.UPDATE.{CALLS}", _elsewhere())) is None
    sending = threading.Thread(target=_send_in_vain, args=(own_platform, key, content))
    sending.start()
    wait_for(lambda: broker.count(KEYS) == 1, "the key in its stream")
    own_platform.kill("proxy 0")
    sending.join()
    broker.do(ensure_streams)
    assert (broker.count(KEYS), broker.count(CALLS)) == (1, 0)
    answer = wait_for(lambda: _accepted(own_platform, key, content), "the next proxy")
    assert answer.headers["x-stoker-repeated"] == "true"
    assert ended(own_platform, answer.headers["x-call-id"]).state == "done"
    assert later(own_platform, key, content).headers["x-call-id"] == answer.headers["x-call-id"]
    assert runs(own_platform, content) == 1 and broker.count(KEYS) == 1


def _elsewhere() -> dict[str, Any]:
    from stoker_gateway.queue.streams import STREAMS
    from stoker_sdk.broker.requests import COMMON

    calls = next(stream for stream in STREAMS if stream["name"] == CALLS)
    return COMMON | {"retention": "limits"} | calls | {"subjects": ["stoker.elsewhere.*.*.*"]}


def _send_in_vain(platform: Platform, key: str, content: bytes) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        later(platform, key, content)


def _accepted(platform: Platform, key: str, content: bytes) -> Answer | None:
    try:
        answer = later(platform, key, content)
    except (OSError, http.client.HTTPException):
        return None
    return answer if answer.status == 202 else None


def test_a_stop_waits_for_the_answer_though_the_client_has_gone(own_platform: Platform) -> None:
    own_platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    key, content = fresh_key(), body(seconds=2)
    leave(own_platform, key, content)
    own_platform.stop()
    own_platform.start()
    own_platform.wait_ready("counted")
    assert now(own_platform, key, content).headers["x-stoker-repeated"] == "true"
    assert runs(own_platform, content) == 1


def test_each_key_has_one_call_through_kills(make_platform: Callable[..., Platform]) -> None:
    """Clients repeat each key until they have 202 three times, while proxies, broker and control are killed."""
    platform = make_platform(proxies=2)
    platform.deploy("counted", COUNTED)
    requests = {fresh_key(): body() for _ in range(60)}
    chance = random.Random(4)
    busy = threading.Event()

    def kill() -> None:
        for role in ("proxy 0", "broker", "proxy 1", "control", "proxy 0", "broker", "proxy 1", "proxy 0"):
            if not busy.wait(chance.uniform(0.1, 0.6)) and (pid := platform.pids().get(role)):
                os.kill(pid, signal.SIGKILL)

    def ids(key: str) -> set[str]:
        found: list[str] = []
        while len(found) < 3:
            answer = _accepted(platform, key, requests[key])
            found += [answer.headers["x-call-id"]] if answer else []
            time.sleep(chance.uniform(0, 0.3))
        return set(found)

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(12) as pool:
        by_key = dict(zip(requests, pool.map(ids, requests), strict=True))
    busy.set()
    killer.join()
    assert [key for key, found in by_key.items() if len(found) != 1] == []
    platform.wait_until_it_answers()
    for [id] in by_key.values():
        assert ended(platform, id).state == "done"
    counts = Counter(line.text.strip() for line in platform.logs("counted"))
    assert counts == {f"ran {content.decode()}": 1 for content in requests.values()}


def test_a_proxy_killed_in_a_call_blocks_its_key_until_the_call_must_have_ended(own_platform: Platform) -> None:
    own_platform.deploy("counted", COUNTED, annotations=IDEMPOTENT | {"stoker.dev/timeout": "2s"})
    key, content = fresh_key(), body(seconds=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(now, own_platform, key, content)
        wait_for(lambda: runs(own_platform, content), "the call to run")
        own_platform.kill("proxy 0")
        assert first.exception() is not None

    begun = time.monotonic()
    answers = []
    while not answers or answers[-1] != 200:
        try:
            answers.append(now(own_platform, key, content).status)
        except (OSError, http.client.HTTPException):
            continue
        assert time.monotonic() - begun < 40
        time.sleep(0.2)
    assert answers[0] == 409 and set(answers) == {409, 200}
    assert time.monotonic() - begun > 10
    assert now(own_platform, key, content).headers["x-stoker-repeated"] == "true"
    assert runs(own_platform, content) == 2


def test_without_a_broker_there_are_no_promises(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--no-async",))
    platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    content = body()
    answer = now(platform, fresh_key(), content)
    assert code(answer) == (501, "client; no-queue") and "--no-async" in answer.text
    assert later(platform, fresh_key(), content).status == 501
    assert platform.call("counted", content).status == 200  # without a key nothing is promised
    assert runs(platform, content) == 1


def test_a_broker_that_does_not_answer_is_told(own_platform: Platform) -> None:
    own_platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    key, content = fresh_key(), body(seconds=1)
    broker = own_platform.pid("broker")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(now, own_platform, key, content)
        wait_for(lambda: runs(own_platform, content), "the call to run")
        os.kill(broker, signal.SIGSTOP)
        try:
            assert first.result().status == 200
            assert "broker" in first.result().headers["x-stoker-not-kept"]
            for send in (now, later):
                answer = send(own_platform, fresh_key(), body())
                assert code(answer) == (503, "platform; queue-unavailable") and "retry-after" in answer.headers
        finally:
            os.kill(broker, signal.SIGCONT)


def test_a_key_is_free_when_its_window_has_passed(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--idempotency-window", "2s"))
    platform.deploy("counted", COUNTED, annotations=IDEMPOTENT)
    key, content = fresh_key(), body()
    assert "x-stoker-repeated" not in now(platform, key, content).headers
    assert now(platform, key, content).headers["x-stoker-repeated"] == "true"

    def runs_again() -> bool:
        answer = now(platform, key, content)
        assert answer.status == 200  # its answer is there for as long as the key is
        return "x-stoker-repeated" not in answer.headers

    wait_for(runs_again, "the end of the window")
    assert runs(platform, content) == 2


def test_unusable_windows_are_refused(tmp_path: Path) -> None:
    from subprocess import run

    platform = Platform(flags=("--idempotency-window", "999h"))
    done = run(platform.command(), capture_output=True, text=True, env=platform.environment, timeout=60)
    platform.delete()
    assert done.returncode == 2 and "--idempotency-window" in done.stderr and "168h" in done.stderr
