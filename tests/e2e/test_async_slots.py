"""Slots of stored calls: each function has its own, so that long calls hold up no other's, and all of them are used."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from running_platform import Platform, wait_for

SLEEP = """
import time

def handle(event, context):
    print(time.time(), flush=True)
    time.sleep(float(event.text or 0))
    return "ok"
"""
DRAIN_SECONDS = 5
STOP_SECONDS = DRAIN_SECONDS + 5 + 3
"""The fork server gives a handler that nothing can interrupt 5 s more; the rest is for a busy machine."""
LATEST = 0.2


def accepted(platform: Platform, name: str, body: bytes, callback: str = "") -> str:
    answer = platform.call_later(name, body, headers={"X-Callback-Url": callback} if callback else {})
    assert answer.status == 202, answer
    return answer.headers["x-call-id"]


def seconds_to_its_begin(platform: Platform, name: str, before: int) -> float:
    """From the 202 of an async call to the function's first line; `before` calls have begun before."""
    accepted(platform, name, b"")
    at = time.time()
    lines = wait_for(lambda: found if len(found := platform.logs(name)) > before else None, f"a call of {name}")
    return float(lines[-1].text) - at


@pytest.mark.slow
def test_a_thousand_waiting_minutes_of_one_function_do_not_delay_anothers(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(proxies=2, flags=("--drain", f"{DRAIN_SECONDS}s"))
    platform.deploy("slow", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    platform.deploy("warm", SLEEP)
    platform.deploy("resting", SLEEP)
    platform.scale("resting", 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: accepted(platform, "slow", b"60"), range(1000)))
    wait_for(lambda: platform.client.calls("slow", state="running"), "the first to run")
    first = seconds_to_its_begin(platform, "warm", 0)
    later = [seconds_to_its_begin(platform, "warm", number) for number in range(1, 20)]
    rested = seconds_to_its_begin(platform, "resting", 0)
    assert len(platform.client.calls("slow", state="running")) == 1
    print(
        f"from 202 to the begin: the function's first call {first * 1000:.0f} ms, "
        f"the slowest of 19 more {max(later) * 1000:.0f} ms, from zero {rested * 1000:.0f} ms"
    )
    assert max(first, *later, rested) < LATEST
    began = time.monotonic()
    command = [sys.executable, "-m", "stoker_cli", "calls", "purge", "slow", "--running", "-g", platform.http_url]
    subprocess.run(command, env=platform.environment, check=True, capture_output=True, timeout=60)
    purged = time.monotonic() - began
    assert platform.client.calls("slow", state="queued") == platform.client.calls("slow", state="running") == []
    began = time.monotonic()
    platform.stop()  # the handler still sleeps
    stopped = time.monotonic() - began
    print(f"1,000 calls purged in {purged:.1f} s, stopped in {stopped:.1f} s with a drain time of {DRAIN_SECONDS} s")
    assert stopped < STOP_SECONDS


@pytest.mark.slow
def test_a_stop_waits_for_a_call_of_a_minute_no_longer_than_it_was_told(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(flags=("--drain", f"{DRAIN_SECONDS}s"))
    platform.deploy("slow", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    for _ in range(20):
        accepted(platform, "slow", b"60")
    wait_for(lambda: platform.client.calls("slow", state="running"), "the first to run")
    began = time.monotonic()
    platform.stop()
    assert time.monotonic() - began < STOP_SECONDS
    platform.start()
    assert len(platform.client.calls("slow", limit=100)) == 20


@contextmanager
def counting_receiver() -> Iterator[tuple[str, Counter[str]]]:
    """A server that takes callbacks: its URL, and how many came for each call."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                counts[self.headers["X-Call-Id"]] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", counts
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_long_calls_use_all_ten_slots_and_call_back_once_each(make_platform: Callable[..., Platform]) -> None:
    """`STOKER_LONG_CALL` (10) is how many seconds a call takes; ten rounds of it, and a tenth more, are allowed."""
    seconds = float(os.environ.get("STOKER_LONG_CALL", "10"))
    platform = make_platform(proxies=2, flags=("--allow-private-callbacks",))
    platform.deploy("long", SLEEP, annotations={"stoker.dev/concurrency": "10"})
    with counting_receiver() as (url, counts), ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        ids = list(pool.map(lambda _: accepted(platform, "long", b"%g" % seconds, url), range(100)))
        wait_for(lambda: counts.keys() == set(ids), "all callbacks", 11 * seconds)
        took = time.monotonic() - began
        states = Counter(status.state for status in platform.client.calls("long", limit=200))
    print(f"100 calls of {seconds:g} s on 10 slots with their callbacks: {took:.1f} s")
    assert took < 11 * seconds
    assert states == {"done": 100}
    assert set(counts.values()) == {1}
    assert len(platform.logs("long")) == 100
