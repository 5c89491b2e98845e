"""`X-Callback-Url`: the answer of a stored call reaches its caller, through kills, and only where callbacks may go."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import pytest
from running_platform import Platform, wait_for

from stoker_sdk.messages import CallbackStatus

ANSWERS = """
def handle(event, context):
    if event.path == '/fail':
        return {'statusCode': 400, 'body': 'no'}
    return {'statusCode': 201, 'headers': {'X-Mine': 'yes', 'Content-Type': 'text/x'}, 'body': b'got ' + event.body}
"""


class Got(NamedTuple):
    headers: dict[str, str]
    body: bytes


@contextmanager
def caller(*statuses: int) -> Iterator[tuple[str, list[Got]]]:
    """A server that takes callbacks: its URL and what it got. It answers with these statuses, then with 204."""
    got: list[Got] = []
    answers = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(Got({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(answers.pop(0) if answers else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()


def send(platform: Platform, url: str, body: bytes = b"this", path: str = "") -> str:
    answer = platform.call_later("answers", body, path=path, headers={"X-Callback-Url": url})
    assert answer.status == 202, answer
    return answer.headers["x-call-id"]


@pytest.fixture(scope="module")
def calling(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that may call this machine, with a function `answers`."""
    secret = tmp_path_factory.mktemp("secret") / "callbacks"
    secret.write_text("hush\n")
    one = Platform(like=platform, flags=("--allow-private-callbacks", "--callback-secret-file", str(secret)))
    try:
        one.start().deploy("answers", ANSWERS, lang="python3-http")
        yield one
    finally:
        one.delete()


def test_the_answer_is_posted_with_what_the_contract_says_and_signed(calling: Platform) -> None:
    with caller() as (url, got):
        id = send(calling, url)
        wait_for(lambda: got, "the callback")
    ((headers, body),) = got
    assert body == b"got this"
    assert headers["x-function-status"] == "201" and headers["x-function-name"] == "answers"
    assert headers["x-call-id"] == id and float(headers["x-duration-seconds"]) >= 0
    assert headers["x-mine"] == "yes" and headers["content-type"] == "text/x"
    text = f"{headers['x-stoker-timestamp']}.{id}.201.".encode() + body
    assert headers["x-stoker-signature"] == "sha256=" + hmac.new(b"hush", text, hashlib.sha256).hexdigest()


def test_a_receiver_that_fails_first_gets_it_again_and_the_call_tells_of_it(calling: Platform) -> None:
    with caller(503, 500) as (url, got):
        id = send(calling, url)
        waiting = wait_for(lambda: callback(calling, id, "waiting"), "the callback to wait")
        assert waiting.next_at > waiting.ended_at and waiting.status in (503, 500)
        assert waiting.reason == f"{url.removesuffix('/hook')} answered {waiting.status}"
        wait_for(lambda: len(got) == 3, "the third attempt")
        end = wait_for(lambda: callback(calling, id, "delivered"), "the callback's end")
    assert {each.headers["x-call-id"] for each in got} == {id}
    assert (end.attempts, end.status, end.reason, end.next_at) == (3, 204, "", "") and end.ended_at


def callback(platform: Platform, id: str, state: str) -> CallbackStatus | None:
    status = platform.client.call_status(id).callback
    return status if status and status.state == state and (status.attempts or state != "waiting") else None


def test_a_call_that_the_function_refuses_tells_its_caller_so(calling: Platform) -> None:
    with caller() as (url, got):
        send(calling, url, path="/fail")
        wait_for(lambda: got, "the callback")
    assert (got[0].headers["x-function-status"], got[0].body) == ("400", b"no")


def test_a_large_answer_arrives_whole(calling: Platform) -> None:
    body = bytes(range(256)) * 20_000
    with caller() as (url, got):
        send(calling, url, body)
        wait_for(lambda: got, "the callback")
    assert got[0].body == b"got " + body


@pytest.mark.slow
def test_every_call_has_its_callback_though_workers_are_killed(calling: Platform) -> None:
    with caller() as (url, got), ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: send(calling, url, b"%d" % n), range(100)))
        calling.kill("worker 0")
        more = list(pool.map(lambda n: send(calling, url, b"%d" % n), range(100)))
        calling.kill("worker 0")
        wait_for(lambda: {each.headers["x-call-id"] for each in got} >= {*ids, *more}, "every callback", 90)


def test_a_private_address_is_refused_unless_the_operator_allows_it(own_platform: Platform) -> None:
    own_platform.deploy("answers", ANSWERS, lang="python3-http")
    with caller() as (url, got):
        id = send(own_platform, url)
        wait_for(lambda: own_platform.client.call_status(id).state == "done", "the call's end")
        wait_for(lambda: "--allow-private-callbacks" in own_platform.log, "the refusal in the log")
        end = wait_for(lambda: callback(own_platform, id, "failed"), "the callback's end")
    assert got == [] and end.attempts == 1 and "--allow-private-callbacks" in end.reason
    plain = own_platform.call_later("answers").headers["x-call-id"]
    wait_for(lambda: own_platform.client.call_status(plain).state == "done", "a call's end")
    assert own_platform.client.call_status(plain).callback is None


@pytest.mark.parametrize("url", ["no url", "ftp://example.org/", "http://user:word@example.org/", "http://"])
def test_a_url_that_is_none_is_refused_before_the_call_is_stored(calling: Platform, url: str) -> None:
    answer = calling.call_later("answers", headers={"X-Callback-Url": url})
    assert answer.status == 400 and answer.headers["x-stoker-error"] == "client; bad-callback"
