"""The counters against a client's own tally: after thousands of calls that end in every way, they are equal."""

from __future__ import annotations

import asyncio
import random
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from loads import parse, request
from prometheus_client.parser import text_string_to_metric_families
from running_platform import Platform, wait_for

CALLS = 10_000
AT_ONCE = 48
MAX_BODY = 100_000
CUT = 499
"""What counts for a caller who left: there is no status that he could have seen."""

PLAIN = """
def handle(event, context):
    if event.path == "/fails":
        raise ValueError("as asked for")
    if event.path == "/teapot":
        return {"statusCode": 418, "body": "short and stout"}
    return event.body
"""
SLOW = """
import asyncio

async def handle(event, context):
    await asyncio.sleep(20)
    return "too late"
"""
BUSY = """
import asyncio

async def handle(event, context):
    await asyncio.sleep(0.03)
    return "done"
"""
STREAM = """
import asyncio

async def handle(event, context):
    yield "first\\n"
    await asyncio.sleep(20)
    yield "last\\n"
"""


@dataclass
class Client:
    """Makes calls, and keeps the tally: calls by function and status."""

    address: tuple[str, int]
    tally: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def call(self, name: str, path: str = "", body: bytes = b"x") -> None:
        """A call to its end."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(request(name, body, path=path))
            self.tally[name, parse(await reader.read()).status] += 1
        finally:
            writer.close()

    async def leave(self, name: str, sent: bytes, *, after: bytes = b"") -> None:
        """Send this, and leave when `after` came. What is unread at the end would reset the connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(sent)
        if after:
            await reader.readuntil(after)
        writer.close()
        await writer.wait_closed()
        self.tally[name, CUT] += 1

    async def burst(self, name: str, number: int) -> None:
        await asyncio.gather(*(self.call(name) for _ in range(number)))


Work = Callable[[Client], Awaitable[None]]
UPLOAD = b"POST /function/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nthe beginning"
CHUNKED = b"POST /function/plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

# How many of each; a burst is 30 calls.
MIX: list[tuple[int, Work]] = [
    (5900, lambda client: client.call("plain")),
    (1000, lambda client: client.call("plain", "/fails")),
    (700, lambda client: client.call("plain", "/teapot")),
    (300, lambda client: client.call("plain", body=b"x" * (MAX_BODY + 1))),
    (500, lambda client: client.call("nobody")),
    (300, lambda client: client.leave("plain", UPLOAD)),
    (200, lambda client: client.leave("plain", CHUNKED)),
    (300, lambda client: client.leave("slow", request("slow"))),
    (300, lambda client: client.leave("stream", request("stream"), after=b"first\n")),
    (200, lambda client: client.call("late")),
    (10, lambda client: client.burst("busy", 30)),
]
EXPECTED = {
    ("plain", 200), ("plain", 500), ("plain", 418), ("plain", 413), ("plain", CUT), ("nobody", 404), ("slow", CUT),
    ("stream", CUT), ("late", 504), ("busy", 200), ("busy", 429),
}  # fmt: skip


async def make_calls(address: tuple[str, int]) -> Counter[tuple[str, int]]:
    client = Client(address)
    works = [work for number, work in MIX for _ in range(number)]
    random.Random(17).shuffle(works)

    async def worker() -> None:
        while works:
            await works.pop()(client)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return client.tally


@dataclass
class Counted:
    """What the platform says, by function; codes by function and status."""

    ended: dict[tuple[str, int], float]
    timed: dict[tuple[str, int], float]
    started: dict[str, float]
    inflight: dict[str, float]


def scrape(platform: Platform) -> Counted:
    with urllib.request.urlopen(platform.metrics_url, timeout=10) as response:
        text = response.read().decode()
    counted = Counted({}, {}, {}, {})
    # The type that a parser would make `_total` of is told by its line, so that the sample keeps its name.
    text = text.replace("# TYPE gateway_function_invocation_started counter\n", "")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.labels.get("function_name", "").removesuffix(".openfaas-fn")
            if sample.name == "gateway_function_invocation_total":
                counted.ended[name, int(sample.labels["code"])] = sample.value
            elif sample.name == "gateway_functions_seconds_count":
                counted.timed[name, int(sample.labels["code"])] = sample.value
            elif sample.name == "gateway_function_invocation_started":
                counted.started[name] = sample.value
            elif sample.name == "gateway_function_invocation_inflight":
                counted.inflight[name] = sample.value
    return counted


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_ten_thousand_mixed_calls_the_counters_equal_the_tally_of_the_client(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(proxies=2, flags=("--max-waiting", "4", "--max-body", str(MAX_BODY)))
    for name, code in (("plain", PLAIN), ("slow", SLOW), ("stream", STREAM)):
        platform.deploy(name, code, lang="python3-http")
    platform.deploy("late", SLOW, lang="python3-http", annotations={"stoker.dev/timeout": "200ms"})
    platform.deploy("busy", BUSY, lang="python3-http", annotations={"stoker.dev/concurrency": "1"})
    tally = asyncio.run(make_calls(platform.http))
    assert tally.total() == CALLS and set(tally) == EXPECTED

    expected = {key: count for key, count in tally.items() if key[0] != "nobody"}  # it has no counters to make grow
    begun: Counter[str] = Counter()
    for (name, _), count in expected.items():
        begun[name] += count
    # A client that has left may still stand in the line of a busy proxy: that it came is seen first, then that all end.
    wait_for(lambda: scrape(platform).started == begun, "the beginning of every call")
    wait_for(lambda: not any(scrape(platform).inflight.values()), "the end of every call")
    counted = scrape(platform)
    assert counted.ended == expected
    assert counted.timed == expected
    assert counted.started == begun
    assert counted.inflight == dict.fromkeys(begun, 0)
    assert {status.name: status.invocation_count for status in platform.client.functions()} == begun
