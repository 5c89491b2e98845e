"""`context.once`: a thing is made once, whoever asks, from threads and from tasks; a failure is made again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stoker_watchdog.event import Context, ReplicaFacts

runs: list[str] = []
plans: list[Exception] = []
gate = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    runs.clear()
    plans.clear()
    gate.clear()


@pytest.fixture
def context() -> Context:
    return Context(ReplicaFacts("greet", "openfaas-fn", connections=3))


def slowly() -> object:
    runs.append(threading.current_thread().name)
    gate.wait(5)
    if plans:
        raise plans.pop()
    return object()


async def slowly_async(context: Context) -> object:
    runs.append(context.call_id)
    await asyncio.sleep(0.05)
    if plans:
        raise plans.pop()
    return object()


def sized(context: Context) -> int:
    return context.connections


def recursive(context: Context) -> Any:
    return context.once(recursive)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def together(context: Context, number: int) -> list[Any]:
    """What so many threads get, all of which ask before the first is done."""

    def ask() -> Any:
        try:
            return context.once(slowly)
        except OSError as error:
            return error

    with ThreadPoolExecutor(number) as pool:
        asked = [pool.submit(ask) for _ in range(number)]
        wait_for(lambda: bool(runs) and pool._work_queue.qsize() == 0)
        gate.set()
        return [one.result() for one in asked]


def test_threads_that_ask_at_once_get_one_thing(context: Context) -> None:
    assert context.made(slowly) is None
    things = together(context, 10)
    assert len(set(map(id, things))) == len(runs) == 1
    assert context.once(slowly) is context.made(slowly) is things[0]


def test_a_failure_reaches_all_who_wait_and_the_next_tries_again(context: Context) -> None:
    plans.append(OSError("no database"))
    answers = together(context, 10)
    failed = [answer for answer in answers if isinstance(answer, OSError)]
    assert failed and len(runs) <= 2  # who came just after the failure has made another
    thing = context.once(slowly)
    assert context.once(slowly) is thing


async def test_tasks_that_ask_at_once_get_one_thing(context: Context) -> None:
    things = await asyncio.gather(*(context.once(slowly_async) for _ in range(10)))
    assert len(set(map(id, things))) == len(runs) == 1
    assert await context.once(slowly_async) is context.made(slowly_async) is things[0]


async def test_an_async_failure_reaches_all_who_wait_and_the_next_tries_again(context: Context) -> None:
    plans.append(OSError("no database"))
    answers = await asyncio.gather(*(context.once(slowly_async) for _ in range(10)), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers)
    assert context.made(slowly_async) is None
    assert await context.once(slowly_async) is context.made(slowly_async)
    assert len(runs) == 2


async def test_a_cancelled_call_does_not_take_the_thing_from_the_others(context: Context) -> None:
    first = asyncio.ensure_future(context.once(slowly_async))
    second = asyncio.ensure_future(context.once(slowly_async))
    await asyncio.sleep(0.01)
    first.cancel()
    thing = await second
    assert first.cancelled()
    assert context.made(slowly_async) is thing and len(runs) == 1


async def test_the_thing_is_there_even_when_all_who_asked_have_left(context: Context) -> None:
    only = asyncio.ensure_future(context.once(slowly_async))
    await asyncio.sleep(0.01)
    only.cancel()
    async with asyncio.timeout(5):
        while context.made(slowly_async) is None:
            await asyncio.sleep(0.01)


def test_a_factory_may_take_the_context(context: Context) -> None:
    assert context.once(sized) == 3
    assert context.once(dict) == {}


def test_what_would_run_in_every_call_is_refused(context: Context) -> None:
    def inner() -> None: ...

    for factory in (inner, lambda: 1, object()):
        with pytest.raises(TypeError, match="defined at the top of a module"):
            context.once(factory)  # type: ignore[arg-type]


def test_a_thread_cannot_wait_for_an_async_factory_and_is_told_so(context: Context) -> None:
    with pytest.raises(TypeError, match="slowly_async is `async def`, and this handler runs in a thread"):
        context.once(slowly_async)


def test_a_factory_that_asks_for_itself_is_an_error_and_no_deadlock(context: Context) -> None:
    with pytest.raises(RuntimeError, match="recursive asks for itself"):
        context.once(recursive)


def test_state_is_that_of_the_replica_and_not_of_the_call() -> None:
    replica = ReplicaFacts("greet", "openfaas-fn")
    Context(replica, "call-1").state = "kept"
    assert Context(replica, "call-2").state == "kept"
