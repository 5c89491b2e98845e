"""When a process that is started when it is wanted may end."""

from __future__ import annotations

import asyncio

import pytest

from stoker_sdk.activity import Activity, until_idle


async def test_what_is_being_done_is_no_rest_however_long_it_takes() -> None:
    activity = Activity()
    assert activity.has_rested(0)
    with activity:
        assert not activity.has_rested(0)
        with activity:
            pass
        assert not activity.has_rested(0)
    assert activity.has_rested(0) and not activity.has_rested(60)


async def test_what_fails_has_ended_too() -> None:
    activity = Activity()
    with pytest.raises(ValueError, match="x"), activity:
        raise ValueError("x")
    assert activity.has_rested(0)


async def test_an_end_is_waited_for_or_told() -> None:
    answers = iter([False, True])
    await until_idle(asyncio.Event(), lambda: next(answers), 0.001)
    stop = asyncio.Event()
    stop.set()
    await until_idle(stop, lambda: False, 60)
