"""What others may do to async calls: fill the broker's stream with rubbish, and take callbacks badly. Ours go on."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from broker import RunningBroker
from running_platform import Platform, wait_for

from stoker_sdk.messages import CallStatus

ECHO = "def handle(event, context):\n    return event.body\n"
LARGE = "def handle(event, context):\n    return b'x' * 10_000_000\n"
REQUEST = "POST /function/echo.openfaas-fn HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
LINE = {"v": 1, "key": "echo.openfaas-fn", "at": 0}


def message(id: str, request: str = REQUEST, **changes: object) -> bytes:
    return json.dumps(LINE | {"id": id} | changes).encode() + b"\n" + request.encode()


def rubbish() -> dict[str, tuple[bytes, str]]:
    """By id: the message, and a word of the reason why it cannot be run."""
    chance = random.Random(4)
    noise = {f"noise-{n}": (chance.randbytes(chance.randrange(3000)), "") for n in range(100)}
    return noise | {
        "empty": (b"", "JSON"),
        "large": (b"\0" * 1_000_000, "JSON"),
        "older": (message("older", v=0), "version 0"),
        "newer": (message("newer", v=99), "version 99"),
        "no-request": (message("no-request", request=""), "no HTTP request"),
        "another": (message("another", request=REQUEST.replace("echo", "other")), "another function"),
        "key": (
            message("key", key="other.openfaas-fn", request=REQUEST.replace("echo", "other")),
            "different functions",
        ),
        "smuggled": (message("smuggled", request=REQUEST + "GET /system/secrets HTTP/1.1\r\n\r\n"), "length"),
        "chunked": (message("chunked", request=REQUEST.replace("Host: x", "Transfer-Encoding: chunked")), "length"),
    }


@pytest.fixture
def own_broker() -> Iterator[RunningBroker]:
    broker = RunningBroker()
    try:
        yield broker.start()
    finally:
        broker.delete()


async def publish(broker: RunningBroker, messages: dict[str, bytes]) -> None:
    """By subject, as somebody else who may write to the broker."""
    client = await broker.client()
    try:
        stream = client.jetstream()
        for subject, payload in messages.items():
            await stream.publish(subject, payload)
    finally:
        await broker.close_clients()


def done(platform: Platform, id: str) -> CallStatus | None:
    status = platform.client.call_status(id)
    return status if status.state in ("done", "dead") else None


@pytest.mark.slow
def test_rubbish_in_the_stream_becomes_dead_letters_and_the_worker_goes_on(
    make_platform: Callable[..., Platform], own_broker: RunningBroker, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(own_broker.settings.token)
    platform = make_platform(flags=("--nats", own_broker.settings.url, "--nats-token-file", str(token)))
    platform.deploy("echo", ECHO)
    first = platform.call_later("echo", b"first").headers["x-call-id"]
    wait_for(lambda: done(platform, first), "the first call")
    worker = platform.pid("worker 0")
    bad = rubbish()
    foreign = {
        f"stoker.call.{subject}": b"x" for subject in ("openfaas-fn.echo.no$id", "a.b.c", "openfaas-fn.gone.one")
    }
    calls = {f"stoker.call.openfaas-fn.echo.{id}": payload for id, (payload, _) in bad.items()}
    others = {f"stoker.callback.openfaas-fn.echo.{id}": payload for id, (payload, _) in bad.items()}
    outcomes = {f"stoker.outcome.openfaas-fn.echo.bad-{id}": payload for id, (payload, _) in bad.items()}
    asyncio.run(publish(own_broker, calls | foreign | others | outcomes))
    last = platform.call_later("echo", b"last").headers["x-call-id"]
    assert wait_for(lambda: done(platform, last), "the call behind the rubbish").state == "done"
    for id, (_, word) in bad.items():
        status = wait_for(lambda id=id: done(platform, id), f"the end of {id}")  # type: ignore[misc]
        assert status.state == "dead" and "cannot be run" in status.reason and word in status.reason, status
        assert status.attempts == []
    listed = platform.client.calls("echo", limit=1000)
    assert {first, last, *bad} <= {status.id for status in listed}
    assert platform.client.calls("gone")[0].state == "queued"
    assert platform.pid("worker 0") == worker
    assert "Traceback" not in platform.log


class Receivers:
    """One server; what it does depends on the path. `got` are the paths that were called."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.got: list[tuple[str, int]] = []
        self.ended = threading.Event()


@contextmanager
def receivers_of_callbacks() -> Iterator[Receivers]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receivers.got.append((self.path, len(body)))
            if self.path == "/slow":
                receivers.ended.wait(60)
            loops = self.path == "/loop"
            self.send_response(307 if loops else 204)
            if loops:
                self.send_header("Location", "/loop")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receivers = Receivers(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receivers
    finally:
        receivers.ended.set()
        server.shutdown()
        server.server_close()


def nobodys_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.slow
def test_bad_receivers_of_callbacks_hold_up_nobody(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--allow-private-callbacks", "--callback-deny", "192.0.2.0/24"))
    platform.deploy("echo", ECHO, lang="python3-http")
    platform.deploy("large", LARGE, lang="python3-http")

    def send(url: str, name: str = "echo") -> str:
        answer = platform.call_later(name, b"x", headers={"X-Callback-Url": url})
        assert answer.status == 202, answer
        return answer.headers["x-call-id"]

    with receivers_of_callbacks() as slow, receivers_of_callbacks() as receivers:
        send(f"{receivers.url}/good")
        wait_for(lambda: receivers.got, "the first callback")
        worker = platform.pid("worker 0")
        urls = [
            *(f"{slow.url}/slow" for _ in range(600)),
            f"{receivers.url}/loop",
            f"http://127.0.0.1:{nobodys_port()}/",
            "http://192.0.2.1/denied",
            "http://no-such-host.invalid/",
        ]
        ids = [send(url) for url in urls]
        loop, denied = ids[600], ids[602]
        wait_for(lambda: ("/slow", 1) in slow.got, "the slow receiver to be called")
        large = send(f"{receivers.url}/large", "large")
        began = time.monotonic()
        wait_for(lambda: ("/large", 10_000_000) in receivers.got, "the callback of 10 MB")
        print(f"a callback of 10 MB behind 600 to a slow receiver: {time.monotonic() - began:.2f} s")
        for id in (*ids, large):
            assert wait_for(lambda id=id: done(platform, id), f"the end of {id}").state == "done"  # type: ignore[misc]
        for id, reason in ((loop, "redirects more than"), (denied, "192.0.2.1")):
            wait_for(lambda id=id: given_up(platform, id), f"the word on {id} in the log")  # type: ignore[misc]
            assert reason in given_up(platform, id)
        assert receivers.got.count(("/loop", 1)) == 6
    assert platform.pid("worker 0") == worker
    assert "Traceback" not in platform.log


def given_up(platform: Platform, id: str) -> str:
    """The log's line on a callback that was given up; empty if there is none."""
    return next((line for line in platform.log.splitlines() if f"callback of call {id}" in line), "")
