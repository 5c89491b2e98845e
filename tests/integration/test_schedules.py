"""Schedules against a real broker: once for each tick, with processes that are killed and clocks that are set."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
import pytest
from broker import RunningBroker
from nats.aio.client import Client

from stoker_gateway.queue.scheduler import Mark, Scheduler, calls_of
from stoker_gateway.queue.stored import decode
from stoker_gateway.queue.streams import STREAMS, ensure_streams
from stoker_gateway.queue.subjects import CALLS, OUTCOMES, key_and_id, outcome_subject
from stoker_gateway.queue.tick_store import SCHEDULES, TickStore
from stoker_gateway.queue.ticks import DAY, Plan, TickCall, due
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.requests import ask
from stoker_sdk.errors import Unavailable
from stoker_sdk.function import FunctionStatus
from stoker_sdk.names import FunctionKey
from stoker_sdk.schedule import Schedule, schedules_of

KEY = FunctionKey("openfaas-fn", "greet")
NOON = 1_767_268_800  # 2026-01-01T12:00:00Z


def function(name: str = "greet", created: str = "2025-06-01T00:00:00Z", **annotations: str) -> FunctionStatus:
    given = {"topic": "cron-function", "schedule": "* * * * *"} | annotations
    return FunctionStatus(name, "image:1", "openfaas-fn", annotations=given, created_at=created)


def plan_of(status: FunctionStatus) -> Plan:
    (schedule,) = schedules_of(status.annotations)
    return Plan(FunctionKey(status.namespace, status.name), schedule)


@asynccontextmanager
async def connected(broker: RunningBroker) -> AsyncIterator[Client]:
    """A connection, and the platform's streams, but with next to no deduplication by time: what is shown here must
    not need it.
    """
    client = await connect(broker.settings, "test")
    await ensure_streams(client)
    calls = next(stream for stream in STREAMS if stream["name"] == CALLS)
    briefly = {**calls, "storage": "file", "allow_direct": True, "duplicate_window": 100_000_000}
    assert await ask(client, f"STREAM.UPDATE.{CALLS}", briefly) is None
    try:
        yield client
    finally:
        await client.close()


class Worker:
    """Runs calls as the real one does: looks for an outcome, stores it, and only then takes the call away."""

    def __init__(self, client: Client) -> None:
        self._js = client.jetstream()
        self.runs: Counter[str] = Counter()
        self.requests: list[bytes] = []

    async def run(self, *, until_empty: bool = False) -> None:
        pull = await self._js.pull_subscribe("stoker.call.>", durable="worker", stream=CALLS)
        while True:
            try:
                messages = await pull.fetch(50, timeout=0.2)
            except TimeoutError:
                if until_empty:
                    return
                continue
            for message in messages:
                await self._run(message)

    async def _run(self, message: nats.aio.msg.Msg) -> None:
        key, id = key_and_id(message.subject) or (KEY, "")
        call, request = decode(message.data)
        assert call.id == id and message.headers is not None and message.headers["Stoker-Resent"]
        try:
            await self._js.get_last_msg(OUTCOMES, outcome_subject(key, id))
        except nats.js.errors.NotFoundError:
            self.runs[id] += 1
            self.requests.append(request)
            await self._js.publish(outcome_subject(key, id), b"{}")
        await message.ack_sync()


class Process:
    """A scheduler as a process whose clock is driven; `kill` takes it away in the middle of whatever it does."""

    def __init__(self, broker: RunningBroker, functions: list[FunctionStatus]) -> None:
        script = Path(__file__).with_name("tick_process.py")
        self._process = subprocess.Popen(
            [sys.executable, script, broker.settings_file, msgspec.json.encode(functions).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._answer() == "ready"

    def begin(self, now: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{now}\n".encode())

    def end(self) -> int:
        """How many ticks it knows to be missed."""
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def day_of_readings() -> list[int]:
    """What the clock shows in a day of minutes: set back by ten at one time, and forward by ten at another."""
    minutes = [*range(301), *range(291, 701), *range(711, 1441)]
    return [NOON + 60 * minute for minute in minutes]


@pytest.mark.slow
async def test_a_day_of_minutes_is_1440_calls_through_kills_and_clocks_that_are_set(broker: RunningBroker) -> None:
    status, chance = function(), random.Random(4)
    kills = sorted(chance.sample(range(5, 1430), 12))
    async with connected(broker) as client:
        worker = Worker(client)
        running = asyncio.create_task(worker.run())
        processes = [Process(broker, [status]) for _ in range(2)]
        try:
            for number, now in enumerate(day_of_readings()):
                for process in processes:
                    process.begin(now)
                if number in kills:
                    await asyncio.sleep(chance.random() * 0.008)
                    processes[0].kill()
                    processes = [processes[1], Process(broker, [status])]
                    processes[0].end()
                else:
                    missed = [await asyncio.to_thread(process.end) for process in processes]
                    assert missed == [0, 0]
        finally:
            for process in processes:
                process.kill()
        await asyncio.sleep(0)
        running.cancel()
        await worker.run(until_empty=True)
    expected = {plan_of(status).call_id(NOON + 60 * minute): 1 for minute in range(1, 1441)}
    assert worker.runs == expected
    assert len(expected) == 1440


async def test_whoever_is_killed_between_call_and_mark_has_neither_lost_nor_doubled_the_tick(
    broker: RunningBroker,
) -> None:
    status = function()
    async with connected(broker) as client:
        now, store, worker = NOON, TickStore(lambda: client), Worker(client)
        await Scheduler(lambda: [status], store, store, lambda: now).step()
        plan = plan_of(status)
        (call,) = _calls(plan, now, now + 60)
        await store.put(call)  # and no more: the mark is not moved
        await worker.run(until_empty=True)
        now += 300  # long after any window of the broker's
        await Scheduler(lambda: [status], store, store, lambda: now).step()
        await worker.run(until_empty=True)
    assert worker.runs == {plan.call_id(NOON + 60 * minute): 1 for minute in range(1, 6)}


def _calls(plan: Plan, until: int, now: int) -> list[TickCall]:
    return calls_of(plan, due(plan, until, now))


async def test_the_call_is_an_ordinary_post_with_body_path_and_what_the_connector_sends(broker: RunningBroker) -> None:
    status = function(topic="", **{"stoker.dev/schedule": '[{"cron":"* * * * *","body":"caf\u00e9","path":"/a/b"}]'})
    async with connected(broker) as client:
        worker = await _ran(client, [status], [NOON, NOON + 60])
    head, _, body = worker.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /function/greet.openfaas-fn/a/b HTTP/1.1" and body.decode() == "caf\u00e9"
    assert "X-Topic: cron-function" in headers and "X-Connector: stoker" in headers
    assert "X-Stoker-Tick: 2026-01-01T12:01:00Z" in headers and "Content-Length: 5" in headers


async def _ran(client: Client, functions: list[FunctionStatus], readings: list[int]) -> Worker:
    store, worker = TickStore(lambda: client), Worker(client)
    now = 0
    scheduler = Scheduler(lambda: functions, store, store, lambda: now)
    for now in readings:  # noqa: B007
        await scheduler.step()
    await worker.run(until_empty=True)
    return worker


@pytest.mark.parametrize(("missed", "runs"), [("", 0), ("skip", 0), ("run-once", 1)])
async def test_ticks_of_an_outage_are_counted_once_and_run_once_if_that_is_asked_for(
    broker: RunningBroker, missed: str, runs: int
) -> None:
    text = msgspec.json.encode([Schedule("0 * * * *", missed=missed)]).decode()
    status = function(topic="", **{"stoker.dev/schedule": text})
    async with connected(broker) as client:
        await _ran(client, [status], [NOON])
        later = NOON + 5 * 3600 + 1800  # 13:00 to 17:00 were missed
        store = TickStore(lambda: client)
        both = [Scheduler(lambda: [status], store, store, lambda: later) for _ in range(2)]
        await asyncio.gather(*(one.step() for one in both))
        worker = Worker(client)
        await worker.run(until_empty=True)
        assert [one.missed() for one in both] == [{KEY: 5}] * 2
        assert (await store.read(plan_of(status))).mark == Mark(later, 5)
    assert sum(worker.runs.values()) == runs
    if runs:
        assert b"X-Stoker-Missed: 5\r\n" in worker.requests[0]
        assert b"X-Stoker-Tick: 2026-01-01T17:00:00Z\r\n" in worker.requests[0]


async def test_a_function_that_is_removed_is_not_called_and_made_again_it_begins_anew(broker: RunningBroker) -> None:
    async with connected(broker) as client:
        store, functions, now = TickStore(lambda: client), [function()], NOON
        scheduler = Scheduler(lambda: functions, store, store, lambda: now)
        await scheduler.step()
        functions.clear()
        now += 600
        await scheduler.step()
        assert (await store.read(plan_of(function()))).mark is None
        again = function(created="2026-01-01T12:09:00Z")
        functions.append(again)
        await scheduler.step()
        now += 60
        await scheduler.step()
        worker = Worker(client)
        await worker.run(until_empty=True)
    assert worker.runs == {plan_of(again).call_id(NOON + 660): 1}


async def test_a_mark_of_an_earlier_function_of_that_name_counts_nothing(broker: RunningBroker) -> None:
    async with connected(broker) as client:
        await _ran(client, [function()], [NOON])
        made = function(created="2026-01-01T19:58:30Z")  # nobody saw the first one go
        worker = await _ran(client, [made], [NOON + 8 * 3600])
        mark = (await TickStore(lambda: client).read(plan_of(made))).mark
    assert sorted(worker.runs) == sorted(plan_of(made).call_id(NOON + 8 * 3600 - 60 * back) for back in (0, 1))
    assert mark == Mark(NOON + 8 * 3600, 0)


async def test_a_clock_that_was_a_year_ahead_does_not_silence_a_schedule(broker: RunningBroker) -> None:
    async with connected(broker) as client:
        worker = await _ran(client, [function()], [NOON + 365 * DAY, NOON, NOON + 60])
    assert worker.runs == {plan_of(function()).call_id(NOON + 60): 1}


async def test_while_the_broker_is_away_ticks_wait_and_nothing_is_lost(broker: RunningBroker) -> None:
    status = function()
    async with connected(broker) as client:
        store, now = TickStore(lambda: client), NOON
        scheduler = Scheduler(lambda: [status], store, store, lambda: now)
        await scheduler.step()
        broker.kill()
        now += 60
        with pytest.raises(Unavailable, match="the broker does not answer"):
            await store.put(_calls(plan_of(status), NOON, now)[0])
        broker.start()
        now += 60
        while (await store.read(plan_of(status))).mark != Mark(now):
            await scheduler.step()
        worker = Worker(client)
        await worker.run(until_empty=True)
    assert worker.runs == {plan_of(status).call_id(NOON + 60 * minute): 1 for minute in (1, 2)}


async def test_a_foreign_message_in_place_of_a_mark_is_replaced(broker: RunningBroker) -> None:
    status, plan = function(), plan_of(function())
    async with connected(broker) as client:
        await TickStore(lambda: client).read(plan)
        subject = f"stoker.schedule.openfaas-fn.greet.{plan.digest}"
        await client.jetstream().publish(subject, b"\xff not a mark", stream=SCHEDULES)
        worker = await _ran(client, [status], [NOON, NOON + 60])
    assert worker.runs == {plan.call_id(NOON + 60): 1}


async def test_a_stored_function_with_a_bad_schedule_leaves_the_others_their_ticks(broker: RunningBroker) -> None:
    bad = function("bad", schedule="whenever")
    async with connected(broker) as client:
        worker = await _ran(client, [bad, function()], [NOON, NOON + 60])
    assert len(worker.runs) == 1
