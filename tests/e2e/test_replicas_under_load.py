"""What callers notice when replicas come and go under them: nothing, but for a kill, and then only who was there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from loads import calls, calls_going_on, log_files, wrk
from running_platform import Platform, wait_for

WHO = """
import os

def handle(event, context):
    return os.environ["STOKER_REPLICA"]
"""
SLOW_WHO = """
import asyncio, os

async def handle(event, context):
    print("begun")
    await asyncio.sleep(float(event.text))
    return os.environ["STOKER_REPLICA"]
"""
VERSION = "def handle(event, context):\n    return {version!r}\n"
LIFE = """
import asyncio

def init():
    print("opened")

def close():
    print("closed")

async def handle(event, context):
    print("begun")
    await asyncio.sleep(0.5)
    return "whole"
"""


async def test_200_calls_at_zero_replicas_all_succeed_with_one_start(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(proxies=2)
    platform.deploy("cold", WHO)
    platform.scale("cold", 0)
    before = log_files(platform, "cold")
    answers = await asyncio.wait_for(calls(platform.http, "cold", 200), 20)
    assert Counter(answer.status for answer in answers) == {200: 200}
    assert len({answer.text for answer in answers}) == 1
    assert len(log_files(platform, "cold") - before) == 1
    assert len(platform.replicas("cold")) == 1


def test_a_rolling_deploy_under_load_fails_no_call(platform: Platform) -> None:
    platform.deploy("rolls", VERSION.format(version="one"))
    with wrk(platform, "rolls") as load:
        for version in ("two", "three", "four"):
            with calls_going_on(platform, "rolls"):
                platform.deploy("rolls", VERSION.format(version=version))
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
    assert platform.call("rolls").text == "four"


def test_scaling_down_and_to_zero_under_load_fails_no_call(platform: Platform) -> None:
    platform.deploy("shrinks", WHO)
    platform.scale("shrinks", 4)
    with wrk(platform, "shrinks") as load:
        for replicas in (2, 1):
            with calls_going_on(platform, "shrinks"):
                platform.scale("shrinks", replicas)
        with calls_going_on(platform, "shrinks"):
            platform.client.scale("shrinks", 0)  # and the next call wakes it
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_killing_a_replica_under_load_fails_only_calls_that_it_had(platform: Platform, method: str) -> None:
    platform.deploy("dies", WHO)
    platform.scale("dies", 2)
    with wrk(platform, "dies", connections=16, method=method) as load:
        with calls_going_on(platform, "dies"):
            _kill_one(platform, "dies")
        wait_for(lambda: len(platform.replicas("dies")) == 2, "the replica to be replaced")
        report = load.report()
    assert (report.socket, report.timeout) == (0, 0)
    # A call that is safe to repeat goes to the other replica; of the others each connection loses one at most.
    assert report.bad <= (0 if method == "GET" else 16)


def test_killing_the_only_replica_under_load_makes_callers_wait_for_the_next(platform: Platform) -> None:
    platform.deploy("alone", WHO)
    with wrk(platform, "alone", connections=8) as load:
        with calls_going_on(platform, "alone"):
            _kill_one(platform, "alone")
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)


async def test_a_killed_replica_takes_its_own_calls_along_and_no_other(platform: Platform) -> None:
    platform.deploy("half", SLOW_WHO)
    platform.scale("half", 2)
    waiting = asyncio.create_task(calls(platform.http, "half", 20, b"0.7"))
    await asyncio.to_thread(wait_for, lambda: _begun(platform, "half") == 20, "20 running calls")
    by_replica = Counter(line.instance for line in platform.logs("half"))
    victim = next(one for one in platform.condition("half").instances if one.id in by_replica)
    await asyncio.to_thread(_kill, platform, victim.pid)
    answers = await waiting
    failed = [answer for answer in answers if answer.status != 200]
    assert len(failed) == by_replica[victim.id]
    assert {answer.status for answer in failed} == {502}
    assert all(answer.headers["x-stoker-error"].startswith("function") for answer in failed)
    assert Counter(answer.text for answer in answers if answer.status == 200) == by_replica - Counter(
        {victim.id: by_replica[victim.id]}
    )


async def test_scaling_to_zero_lets_running_calls_finish_and_runs_the_close_hook(platform: Platform) -> None:
    platform.deploy("drains", LIFE)
    waiting = asyncio.create_task(calls(platform.http, "drains", 10))
    await asyncio.to_thread(wait_for, lambda: _begun(platform, "drains") == 10, "10 running calls")
    await asyncio.to_thread(platform.scale, "drains", 0)
    assert {(answer.status, answer.text) for answer in await waiting} == {(200, "whole")}
    lines = [line.text.strip() for line in platform.logs("drains")]
    assert lines[0] == "opened"
    assert lines[-1] == "closed"


async def test_sigterm_to_the_server_lets_running_calls_finish_and_runs_the_close_hook(
    own_platform: Platform,
) -> None:
    own_platform.deploy("drains", LIFE)
    waiting = asyncio.create_task(calls(own_platform.http, "drains", 10))
    await asyncio.to_thread(wait_for, lambda: _begun(own_platform, "drains") == 10, "10 running calls")
    assert await asyncio.to_thread(own_platform.stop) == 0
    assert {(answer.status, answer.text) for answer in await waiting} == {(200, "whole")}
    (log,) = (own_platform.data.logs / "openfaas-fn" / "drains").glob("*.log")
    assert log.read_text().endswith("closed\n")


async def test_removing_a_function_lets_its_running_calls_finish(platform: Platform) -> None:
    platform.deploy("leaves", LIFE)
    waiting = asyncio.create_task(calls(platform.http, "leaves", 5))
    await asyncio.to_thread(wait_for, lambda: _begun(platform, "leaves") == 5, "5 running calls")
    pids = platform.replicas("leaves")
    await asyncio.to_thread(platform.client.remove, "leaves")
    assert {(answer.status, answer.text) for answer in await waiting} == {(200, "whole")}
    assert platform.call("leaves").status == 404
    await asyncio.to_thread(wait_for, lambda: not set(pids) & set(platform.processes()), "the end of its replica")


def _begun(platform: Platform, name: str) -> int:
    return sum(line.text == "begun\n" for line in platform.logs(name))


def _kill_one(platform: Platform, name: str) -> None:
    _kill(platform, platform.replicas(name)[0])


def _kill(platform: Platform, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in platform.processes(), "the end of the replica")
