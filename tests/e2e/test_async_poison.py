"""Calls that end what runs them, again and again: dead with the reason after a while, and nobody else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from running_platform import Platform, wait_for
from test_async_calls import accepted, ended

from stoker_gateway.queue.losses import MOST_LOST
from stoker_sdk.errors import StokerError
from stoker_sdk.messages import CallStatus

SLEEP = """
import asyncio

async def handle(event, context):  # it ends when its caller does, unlike a plain function
    print("begun", event.text, flush=True)
    await asyncio.sleep(float(event.text or 0))
    return "ok"
"""
DIES = """
import os, signal

def handle(event, context):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def begun(platform: Platform, name: str, body: str) -> int:
    try:
        return sum(line.text.strip() == f"begun {body}" for line in platform.logs(name))
    except StokerError:  # the proxy is being started again
        return 0


def kill_at_each_run(platform: Platform, role: str, name: str, id: str, most: int) -> CallStatus:
    for number in range(1, most + 1):
        wait_for(lambda number=number: begun(platform, name, "30") >= number, f"run {number} of {name}", 60)
        platform.kill(role)
    return ended(platform, id, 60)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_call_whose_worker_is_killed_each_time_is_dead_at_last(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--worker-lost-after", "1s"))
    platform.deploy("poison", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    platform.deploy("waits", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    id = accepted(platform.call_later("poison", b"30"))
    bystander = accepted(platform.call_later("waits", b"0.1"))
    behind = [accepted(platform.call_later("poison")) for _ in range(3)]
    status = kill_at_each_run(platform, "worker 0", "poison", id, MOST_LOST + 1)
    assert (status.state, status.status) == ("dead", 0)
    assert status.reason.startswith(f"{MOST_LOST} times the proxy or worker")
    assert [attempt.lost for attempt in status.attempts] == [True] * MOST_LOST
    assert {ended(platform, other, 60).state for other in (bystander, *behind)} == {"done"}
    assert ended(platform, platform.client.replay_call(id, body=b"0")).state == "done"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_call_whose_proxy_is_killed_each_time_is_dead_at_last(own_platform: Platform) -> None:
    own_platform.deploy("poison", SLEEP)
    id = accepted(own_platform.call_later("poison", b"30"))
    status = kill_at_each_run(own_platform, "proxy 0", "poison", id, MOST_LOST)
    assert status.state == "dead" and status.reason.startswith(f"{MOST_LOST} times the proxy or worker")
    assert all(attempt.lost and attempt.ended_at for attempt in status.attempts)
    assert begun(own_platform, "poison", "30") == MOST_LOST


def test_a_call_that_kills_its_replica_each_time_is_dead_after_its_attempts(platform: Platform) -> None:
    retries = {"stoker.dev/retries": '{"max":2,"backoff":"50ms","max_backoff":"100ms"}'}
    platform.deploy("dies", DIES, annotations=retries)
    status = ended(platform, accepted(platform.call_later("dies")), 60)
    assert (status.state, len(status.attempts)) == ("dead", 3) and status.status in (502, 503)
    assert "at the last of 3 attempts" in status.reason and status.attempts[0].status == 502
    assert not any(attempt.lost for attempt in status.attempts)


@pytest.mark.slow
def test_a_worker_that_is_stopped_in_a_call_costs_it_nothing(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--worker-lost-after", "2s", "--drain", "1s"))
    platform.deploy("stopped", SLEEP)
    id = accepted(platform.call_later("stopped", b"4"))
    for number in range(1, 4):
        wait_for(lambda number=number: begun(platform, "stopped", "4") >= number, f"run {number}", 20)
        platform.stop()
        platform.start()
    status = ended(platform, id, 30)
    assert status.state == "done" and not any(attempt.lost for attempt in status.attempts)
