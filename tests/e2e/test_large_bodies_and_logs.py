"""A gigabyte either way, and a flood of prints: no process grows, and no other call waits."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from loads import call
from running_platform import Platform, wait_for

GIGABYTE = 1 << 30
MEGABYTE = 1 << 20
GROWTH = 20 * MEGABYTE
PIECE = bytes(range(256)) * 256

LARGE = """
PIECE = bytes(range(256)) * 256

def handle(event, context):
    if event.method == "POST":
        return str(count(event.file))
    return pieces(int(event.raw_query))

def count(file):
    size = 0
    while piece := file.read(1 << 16):
        size += len(piece)
    return size

def pieces(number):
    for _ in range(number):
        yield PIECE
"""
LOUD = """
import time

def handle(event, context):
    if event.path == "/line":
        print("x" * 10_000_000)
    elif event.path == "/flood":
        end = time.monotonic() + 2
        while time.monotonic() < end:
            begun = time.monotonic()
            for number in range(1000):
                print("a line as handlers print them, number", number)
            time.sleep(max(0, 0.01 - (time.monotonic() - begun)))
    return "ok"
"""
QUIET = "async def handle(event, context):\n    return 'ok'\n"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_gigabyte_up_and_down_grows_no_process(own_platform: Platform) -> None:
    own_platform.deploy("large", LARGE, annotations={"stoker.dev/timeout": "2m"})
    assert _upload(own_platform, 8 * MEGABYTE) == 8 * MEGABYTE
    assert _download(own_platform, 8 * MEGABYTE) == 8 * MEGABYTE
    with _no_process_grows(own_platform):
        assert _upload(own_platform, GIGABYTE) == GIGABYTE
        assert _download(own_platform, GIGABYTE) == GIGABYTE


def test_a_reader_that_stops_makes_the_generator_wait(platform: Platform) -> None:
    platform.deploy("flows", LARGE, annotations={"stoker.dev/timeout": "2m"})
    assert platform.call("flows", path="?16", method="GET").status == 200
    with _no_process_grows(platform):
        connection = http.client.HTTPConnection(*platform.http, timeout=20)
        connection.request("GET", f"/function/flows?{GIGABYTE // len(PIECE)}")
        response = connection.getresponse()
        assert response.read(len(PIECE)) == PIECE
        _wait_until_the_platform_rests(platform)
        connection.close()


@pytest.mark.slow
async def test_a_flood_of_prints_delays_neither_another_function_nor_its_own_other_calls(platform: Platform) -> None:
    platform.deploy("loud", LOUD)
    platform.deploy("quiet", QUIET)
    flood = asyncio.create_task(call(platform.http, "loud", path="/flood"))
    delays: dict[str, list[float]] = {"quiet": [], "loud": []}
    while not flood.done():
        for name, seen in delays.items():
            begun = time.monotonic()
            assert (await call(platform.http, name)).text == "ok"
            seen.append(time.monotonic() - begun)
    assert (await flood).text == "ok"
    for name, seen in delays.items():
        assert len(seen) > 50
        assert _p99(seen) < 0.1, f"{name}: {_p99(seen):.3f} s"
    assert _lines_printed(platform, "loud") > 100_000


async def test_a_line_of_10_mb_delays_no_call_and_is_cut(platform: Platform) -> None:
    platform.deploy("long", LOUD)
    platform.deploy("quiet", QUIET)
    line = asyncio.create_task(call(platform.http, "long", path="/line", headers={"X-Call-Id": "long-1"}))
    delays: list[float] = []
    while not line.done() or len(delays) < 20:
        begun = time.monotonic()
        assert (await call(platform.http, "quiet")).text == "ok"
        delays.append(time.monotonic() - begun)
    assert (await line).text == "ok"
    assert max(delays) < 0.25
    (text,) = [entry.text for entry in platform.logs("long") if entry.call == "long-1" and entry.text.strip()]
    assert text.startswith("x" * 1000) and "dropped" in text[-100:] and len(text) < 70_000


def _upload(platform: Platform, size: int) -> int:
    connection = http.client.HTTPConnection(*platform.http, timeout=120)
    connection.request("POST", "/function/large", _pieces(size), {"Content-Length": str(size)})
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    connection.close()
    return int(text)


def _download(platform: Platform, size: int) -> int:
    connection = http.client.HTTPConnection(*platform.http, timeout=120)
    connection.request("GET", f"/function/large?{size // len(PIECE)}")
    response = connection.getresponse()
    received, buffer = 0, bytearray(1 << 18)
    while count := response.readinto(buffer):
        received += count
    connection.close()
    return received


def _pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE


@contextmanager
def _no_process_grows(platform: Platform) -> Iterator[None]:
    """Samples the private memory of every process of the platform all the while."""
    before = _memory(platform)
    peaks = dict(before)
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            for pid, size in _memory(platform).items():
                peaks[pid] = max(peaks.get(pid, 0), size)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    growth = {" ".join(_command(pid))[:60]: peaks[pid] - before.get(pid, 0) for pid in peaks}
    assert max(growth.values()) < GROWTH, {name: f"{size / MEGABYTE:.1f} MB" for name, size in growth.items()}


def _memory(platform: Platform) -> dict[int, int]:
    """Resident memory that is not of files: file pages that a process touches cost nobody anything."""
    sizes = {}
    for pid in platform.processes():
        try:
            info = psutil.Process(pid).memory_info()
        except psutil.NoSuchProcess:
            continue
        sizes[pid] = info.rss - info.shared
    return sizes


def _command(pid: int) -> list[str]:
    try:
        return list(psutil.Process(pid).cmdline()[1:])
    except psutil.NoSuchProcess:
        return [str(pid)]


def _wait_until_the_platform_rests(platform: Platform) -> None:
    """Nobody computes any more, so all that will be buffered is."""
    last = [0.0]

    def rests() -> bool:
        now = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in platform.processes())
        last.append(now)
        return len(last) > 50 and last[-1] == last[-25]

    wait_for(rests, "the platform to rest")


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _lines_printed(platform: Platform, name: str) -> int:
    """Those that are in the log, and those that it says were dropped."""
    texts = [line.text for line in platform.logs(name)]
    dropped = [int(text.split()[1]) for text in texts if text.startswith("[stoker: ") and "lines dropped" in text]
    return len(texts) + sum(dropped)
