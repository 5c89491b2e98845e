"""Publisher, streams and look-ups against a real nats-server that is killed and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from broker import RunningBroker

from stoker_gateway.queue.link import Link
from stoker_gateway.queue.publisher import EXISTS, RESENT, STORED, TIMEOUT, Publisher
from stoker_gateway.queue.streams import ensure_streams
from stoker_gateway.queue.subjects import CALLS, OUTCOMES, by_id, call_subject, of_functions, outcome_subject
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.lookup import any_of, first_of, last_of, page_of
from stoker_sdk.broker.requests import ask
from stoker_sdk.names import FunctionKey

KEY = FunctionKey("openfaas-fn", "greet")


@asynccontextmanager
async def publishing(broker: RunningBroker, deadline: float = 10.0) -> AsyncIterator[Publisher]:
    link = Link(broker.settings, "publisher")
    publisher = Publisher(link, deadline=deadline)
    client = await connect(broker.settings, "streams")
    await ensure_streams(client)
    try:
        yield publisher
    finally:
        publisher.close()
        link.close()
        await client.close()


async def publish(publisher: Publisher, subject: str, payload: bytes = b"x") -> str:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    assert publisher.publish(subject, payload, result.set_result)
    return await result


async def test_streams_are_made_once_and_updated_by_the_next_start(broker: RunningBroker) -> None:
    client = await broker.client()
    await ensure_streams(client)
    await ensure_streams(client)
    assert await last_of(client, CALLS, call_subject(KEY, "none")) is None


async def test_the_second_outcome_of_a_call_is_refused(broker: RunningBroker) -> None:
    async with publishing(broker) as publisher:
        assert await publish(publisher, outcome_subject(KEY, "a"), b"first") == STORED
        assert await publish(publisher, outcome_subject(KEY, "a"), b"second") == EXISTS
        found = await last_of(await broker.client(), OUTCOMES, outcome_subject(KEY, "a"))
        assert found is not None and found.data == b"first"


async def test_a_call_is_found_by_its_id_alone_and_in_pages(broker: RunningBroker) -> None:
    async with publishing(broker) as publisher:
        for number in range(25):
            assert await publish(publisher, call_subject(KEY, f"id-{number}")) == STORED
        client = await broker.client()
        found = await any_of(client, CALLS, by_id("call", "id-7"))
        assert found is not None and found.subject == call_subject(KEY, "id-7")
        assert await any_of(client, CALLS, by_id("call", "id-99")) is None
        page = await page_of(client, CALLS, of_functions("call", *KEY), found.sequence, 10)
        assert [one.subject for one in page] == [call_subject(KEY, f"id-{number}") for number in range(7, 17)]
        assert await first_of(client, CALLS, of_functions("call", "openfaas-fn", "other")) is None


async def test_what_was_acknowledged_survives_kills_and_nothing_is_stored_twice(broker: RunningBroker) -> None:
    results: dict[str, str] = {}
    async with publishing(broker, deadline=30) as publisher:
        for number in range(3000):
            id = f"id-{number}"
            publisher.publish(call_subject(KEY, id), b"x", lambda result, id=id: results.update({id: result}))
            if number % 1000 == 500:
                await asyncio.sleep(0)
                broker.kill()
                broker.start()
        async with asyncio.timeout(40):
            while len(results) < 3000:
                await asyncio.sleep(0.02)
        assert set(results.values()) == {STORED}
        client = await broker.client()
        seen: list[str] = []
        while page := await page_of(client, CALLS, of_functions("call", *KEY), len(seen) + 1, 500):
            seen += [one.subject for one in page]
        assert sorted(seen) == sorted(call_subject(KEY, id) for id in results)


async def test_many_at_a_time_leave_in_batches_and_each_is_told_its_own_result() -> None:
    """One that is refused takes its batch with it, whose others are then stored all the same."""
    broker = RunningBroker(durable=True).start()
    try:
        async with publishing(broker) as publisher:
            assert await publish(publisher, outcome_subject(KEY, "id-77"), b"first") == STORED
            results: dict[str, list[str]] = {}
            for number in range(600):
                subject = outcome_subject(KEY, f"id-{number}")
                told = results.setdefault(subject, []).append
                publisher.publish(subject, b"second", told, stream=OUTCOMES)
            async with asyncio.timeout(20):
                while sum(map(len, results.values())) < 600:
                    await asyncio.sleep(0.01)
            assert {subject for subject, told in results.items() if told != [STORED]} == {outcome_subject(KEY, "id-77")}
            assert results[outcome_subject(KEY, "id-77")] == [EXISTS]
            client = await broker.client()
            page = await page_of(client, OUTCOMES, of_functions("outcome", *KEY), 1, 1000)
            assert len(page) == 600
            assert sum("Nats-Batch-Id" in one.headers for one in page) > 200
            await broker.close_clients()
    finally:
        broker.delete()


async def test_batches_through_kills_store_everything_once() -> None:
    broker = RunningBroker(durable=True).start()
    results: dict[str, list[str]] = {}
    try:
        async with publishing(broker, deadline=60) as publisher:
            for round in range(30):
                for number in range(100):
                    subject = call_subject(KEY, f"id-{round}-{number}")
                    publisher.publish(subject, b"x", results.setdefault(subject, []).append, stream=CALLS)
                await asyncio.sleep(0.004)
                if round % 10 == 5:
                    broker.kill()
                    broker.start()
            async with asyncio.timeout(60):
                while sum(map(len, results.values())) < 3000:
                    await asyncio.sleep(0.02)
            assert set(map(tuple, results.values())) == {(STORED,)}
            client = await broker.client()
            seen: list[str] = []
            while page := await page_of(client, CALLS, of_functions("call", *KEY), len(seen) + 1, 500):
                seen += [one.subject for one in page]
            assert sorted(seen) == sorted(results)
            await broker.close_clients()
    finally:
        broker.delete()


async def test_a_broker_that_is_away_too_long_is_told_at_the_deadline(broker: RunningBroker) -> None:
    async with publishing(broker, deadline=0.6) as publisher:
        broker.kill()
        began = asyncio.get_running_loop().time()
        assert await publish(publisher, call_subject(KEY, "late")) == TIMEOUT
        assert asyncio.get_running_loop().time() - began < 2
        assert publisher.waiting_bytes == 0


async def test_a_message_that_was_sent_again_says_so(broker: RunningBroker) -> None:
    """Without the stream nobody acknowledges; it is repeated until there is one."""
    async with publishing(broker) as publisher:
        client = await broker.client()
        assert await ask(client, f"STREAM.DELETE.{CALLS}", {}) is None
        waiting = asyncio.create_task(publish(publisher, call_subject(KEY, "again")))
        await asyncio.sleep(0.3)
        await ensure_streams(client)
        assert await waiting == STORED
        found = await last_of(client, CALLS, call_subject(KEY, "again"))
        assert found is not None and found.headers[RESENT] == "1"


async def test_more_than_may_wait_is_refused_at_once(broker: RunningBroker) -> None:
    link = Link(broker.settings, "publisher")
    publisher = Publisher(link, most=10)
    assert not publisher.publish("stoker.call.a.b.c", b"x" * 11, lambda _: pytest.fail("nothing was taken"))
    publisher.close()
    link.close()
