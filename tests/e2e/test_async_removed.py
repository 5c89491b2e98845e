"""Async calls of functions that are removed: they wait for them to come back, and then they are dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from running_platform import Platform, wait_for
from test_async_calls import RECORD, accepted, ended
from test_async_poison import SLEEP

ONE_AT_A_TIME = {"stoker.dev/concurrency": "1"}


def removed(platform: Platform, name: str) -> list[str]:
    """Calls that wait for a function that has just been removed."""
    platform.deploy(name, SLEEP, annotations=ONE_AT_A_TIME)
    running = accepted(platform.call_later(name, b"60"))
    wait_for(lambda: platform.client.call_status(running).state == "running", "the first to run")
    ids = [accepted(platform.call_later(name, b"0")) for _ in range(5)]
    platform.client.remove(name)
    platform.client.cancel_call(running)
    return ids


@pytest.mark.slow
def test_a_function_that_comes_back_finds_its_calls(platform: Platform) -> None:
    ids = removed(platform, "back")
    assert {platform.client.call_status(id).state for id in ids} == {"queued"}
    platform.deploy("back", RECORD)
    assert {ended(platform, id).state for id in ids} == {"done"}


@pytest.mark.slow
def test_calls_of_one_that_stays_away_are_dead_and_can_be_replayed(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--removed-after", "2s"))
    ids = removed(platform, "away")
    for id in ids:
        status = ended(platform, id)
        assert (status.state, status.reason) == ("dead", "the function was removed: deploy it and replay the call")
    platform.deploy("away", RECORD)
    for step in platform.client.replay_calls("away", ""):
        assert {ended(platform, new).state for new in step.replayed.values()} <= {"done"}


@pytest.mark.slow
def test_calls_that_no_worker_ever_heard_of_end_too(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--workers", "0"))
    platform.deploy("unheard", RECORD)
    ids = [accepted(platform.call_later("unheard")) for _ in range(3)]
    platform.client.remove("unheard")
    platform.stop()
    platform.flags = ("--removed-after", "1s")
    platform.start()
    for id in ids:
        assert ended(platform, id, 40).state == "dead"
