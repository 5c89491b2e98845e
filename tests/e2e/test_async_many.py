"""Many async calls cancelled, forgotten and replayed at once, with real processes.

`STOKER_MANY_CALLS` (2,000) is how many wait; the full test has 100,000.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from running_platform import Platform, wait_for
from test_async_calls import FAILS, accepted, ended
from test_async_poison import SLEEP

from stoker_gateway.queue.link import Link
from stoker_gateway.queue.publisher import STORED, Publisher
from stoker_gateway.queue.stored import VERSION, StoredCall, encode
from stoker_gateway.queue.subjects import CALLS, bell_subject, call_subject
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.errors import BadInput
from stoker_sdk.names import FunctionKey

MANY = int(os.environ.get("STOKER_MANY_CALLS", "2000"))
ONE_AT_A_TIME = {"stoker.dev/concurrency": "1", "stoker.dev/timeout": "1h"}


async def store(platform: Platform, name: str, count: int, body: bytes) -> None:
    """As a proxy does it, but faster than its clients could send."""
    key = FunctionKey("openfaas-fn", name)
    link = Link(read_settings(platform.run_folder / "broker.json"), "test")
    publisher = Publisher(link)
    left = count
    done = asyncio.Event()

    def stored(result: str) -> None:
        nonlocal left
        assert result == STORED
        left -= 1
        if not left:
            done.set()

    for number in range(count):
        id = f"{name}-{number}"
        head = f"POST /function/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nX-Call-Id: {id}\r\n\r\n"
        call = StoredCall(VERSION, id, str(key), time.time_ns())
        publisher.publish(call_subject(key, id), encode(call, head.encode(), body), stored, stream=CALLS)
        if number % 5000 == 0:
            await asyncio.sleep(0)
    await done.wait()
    publisher.tell(bell_subject(key).encode())
    await publisher.drain(5)
    publisher.close()
    link.close()


def states(platform: Platform, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    after = ""
    while page := platform.client.calls(name, after=after, limit=1000):
        for status in page:
            found[status.state] = found.get(status.state, 0) + 1
        after = page[-1].cursor
    return found


def purge(platform: Platform, name: str, state: str) -> int:
    return sum(step.calls for step in platform.client.purge_calls(name, "", state))


def runs(platform: Platform, name: str) -> int:
    return len(platform.logs(name))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_waits_is_cancelled_and_what_runs_goes_on(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform()
    platform.deploy("stuck", SLEEP, annotations=ONE_AT_A_TIME)
    running = accepted(platform.call_later("stuck", b"600"))
    wait_for(lambda: platform.client.call_status(running).state == "running", "the first to run")
    asyncio.run(store(platform, "stuck", MANY, b"0"))
    begun = time.monotonic()
    # An outcome that had to be sent twice, since the broker was slow, may count as somebody else's.
    assert MANY * 0.999 <= purge(platform, "stuck", "queued") <= MANY
    seconds = time.monotonic() - begun
    print(f"{MANY} waiting calls cancelled beside a running one: {seconds:.1f} s, {MANY / seconds:.0f}/s")
    assert platform.client.call_status(running).state == "running"
    assert states(platform, "stuck") == {"running": 1, "cancelled": MANY}
    later = accepted(platform.call_later("stuck", b"0"))
    assert purge(platform, "stuck", "running") == 1
    assert ended(platform, running).state == "cancelled" and ended(platform, later).state == "done"
    assert runs(platform, "stuck") == 2
    asyncio.run(store(platform, "stuck-not", MANY, b"0"))  # of a function that is not deployed, and never runs
    begun = time.monotonic()
    assert MANY * 0.999 <= purge(platform, "stuck-not", "queued") <= MANY
    seconds = time.monotonic() - begun
    print(f"{MANY} waiting calls cancelled, none of which runs: {seconds:.1f} s, {MANY / seconds:.0f}/s")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_calls_that_are_being_worked_off_end_once_each_when_they_are_purged(platform: Platform) -> None:
    platform.deploy("busy", SLEEP, annotations={"stoker.dev/concurrency": "4"})
    asyncio.run(store(platform, "busy", 2000, b"0.01"))
    wait_for(lambda: runs(platform, "busy") > 20, "some to run")
    cancelled = purge(platform, "busy", "queued")
    assert cancelled > 100
    wait_for(lambda: set(states(platform, "busy")) == {"done", "cancelled"}, "the last to end")
    assert states(platform, "busy") == {"done": 2000 - cancelled, "cancelled": cancelled}
    assert 0 <= runs(platform, "busy") - (2000 - cancelled) <= 20  # those that began at that moment


@pytest.mark.slow
def test_a_purge_that_is_cut_short_and_begun_again_changes_nothing_twice(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform()
    platform.deploy("cut", SLEEP, annotations=ONE_AT_A_TIME)
    running = accepted(platform.call_later("cut", b"600"))
    wait_for(lambda: platform.client.call_status(running).state == "running", "the first to run")
    asyncio.run(store(platform, "cut", 300, b"0"))
    steps = _steps(platform, "cut", limit=100)
    first = next(steps)
    assert first["calls"] in (99, 100) and first["after"]
    platform.kill("control")
    platform.wait_until_it_answers()
    platform.kill("worker 0")  # the next one has not heard that calls may have been cancelled
    total = first["calls"] + sum(step["calls"] for step in _steps(platform, "cut", limit=100))
    total += purge(platform, "cut", "running")
    assert total == 301  # that which ran waits for a worker now, or runs again
    assert states(platform, "cut") == {"cancelled": 301}
    assert runs(platform, "cut") <= 2


def _steps(platform: Platform, name: str, limit: int) -> Any:
    after = ""
    while True:
        step = _step(platform, f"function={name}&limit={limit}&after={after}")
        yield step
        if not (after := step.get("after", "")):
            return


def _step(platform: Platform, query: str) -> dict[str, Any]:
    answer = platform.request("DELETE", f"/system/calls?{query}", b"", platform.authorization)
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


def test_dead_calls_are_replayed_once_for_each_replay_and_forgotten(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("failing", FAILS, annotations={"stoker.dev/retries": '{"max":0}'})
    dead = [accepted(platform.call_later("failing", b"%d" % number)) for number in range(30)]
    for id in dead:
        assert ended(platform, id).state == "dead"
    body, after = b'{"headers": {"X-Again": "yes"}}', ""
    first = _replay(platform, body, after)
    again = _replay(platform, body, first["after"])
    assert len(first["replayed"]) == 10 and len(again["replayed"]) == 10
    assert _replay(platform, body, first["after"])["replayed"] == again["replayed"]  # the answer was lost, say
    rest = _replay(platform, body, again["after"])
    assert {*first["replayed"], *again["replayed"], *rest["replayed"]} == set(dead)
    for new in [*first["replayed"].values(), *again["replayed"].values(), *rest["replayed"].values()]:
        assert ended(platform, new).replay_of in dead
    assert runs(platform, "failing") == 60
    assert states(platform, "failing") == {"dead": 60}
    assert purge(platform, "failing", "dead") == 60
    assert states(platform, "failing") == {} and list(platform.client.replay_calls("failing", ""))[-1].replayed == {}


def _replay(platform: Platform, body: bytes, after: str) -> dict[str, Any]:
    target = f"/system/calls/replay?function=failing&limit=10&after={after}"
    answer = platform.request("POST", target, body, platform.authorization)
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "query",
    [
        *("", "function=", "function=UPPER", "function=a&state=done", "function=a&state=", "function=a&limit=0"),
        *("function=a&after=x", "function=a&after=r:1:1:", "function=a&limit=10001", "function=a&after=c:1:1:x"),
    ],
)
def test_a_purge_that_is_not_clear_is_refused(platform: Platform, query: str) -> None:
    answer = platform.request("DELETE", f"/system/calls?{query}", b"", platform.authorization)
    assert answer.status == 400 and answer.text.endswith("\n"), answer
    with pytest.raises(BadInput):
        next(platform.client.purge_calls("a", "", "cancelled"))
