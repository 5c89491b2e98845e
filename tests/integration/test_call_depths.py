"""How deep the queues are, as a real broker tells it."""

from __future__ import annotations

import time

from broker import RunningBroker

from stoker_gateway.queue.depths import CACHE_SECONDS, Depths, consumers
from stoker_gateway.queue.streams import ensure_streams
from stoker_gateway.queue.subjects import CALLS, call_subject, consumer_name, of_functions
from stoker_sdk.broker.requests import ask
from stoker_sdk.names import FunctionKey

FUNCTIONS = 1000


async def make_consumer(client: object, key: FunctionKey) -> None:
    name = consumer_name(key)
    config = {
        "durable_name": name,
        "ack_policy": "explicit",
        "filter_subject": of_functions("call", *key),
        "ack_wait": 30 * 10**9,
    }
    request = {"stream_name": CALLS, "config": config}
    assert await ask(client, f"CONSUMER.DURABLE.CREATE.{CALLS}.{name}", request) is None  # type: ignore[arg-type]


async def test_waiting_and_running_calls_count_and_the_oldest_has_its_age(broker: RunningBroker) -> None:
    client = await broker.client()
    await ensure_streams(client)
    key, idle = FunctionKey("openfaas-fn", "greet"), FunctionKey("dev", "idle")
    for each in (key, idle):
        await make_consumer(client, each)
    before = time.time()
    for number in range(3):
        await client.jetstream().publish(call_subject(key, f"id-{number}"), b"x" * 100_000)
    depths = await Depths(lambda: client).read()
    assert (depths[key].calls, depths[idle].calls) == (3, 0)
    assert before - 1 < depths[key].oldest < time.time() + 1 and depths[idle].oldest == 0
    pulls = await client.jetstream().pull_subscribe_bind(consumer_name(key), CALLS)
    first, second = await pulls.fetch(2)
    assert (await Depths(lambda: client).read())[key].calls == 3  # two run
    await first.ack_sync()
    after = (await Depths(lambda: client).read())[key]
    assert after.calls == 2 and after.oldest > depths[key].oldest
    await second.ack_sync()


async def test_a_thousand_functions_cost_a_few_requests_and_then_none(broker: RunningBroker) -> None:
    client = await broker.client()
    await ensure_streams(client)
    keys = [FunctionKey("openfaas-fn", f"f{number}") for number in range(FUNCTIONS)]
    for key in keys:
        await make_consumer(client, key)
        await client.publish(call_subject(key, "only"), b"x")
    depths = Depths(lambda: client)
    begun = time.monotonic()
    assert {key: depth.calls for key, depth in (await depths.read()).items()} == dict.fromkeys(keys, 1)
    first, begun = time.monotonic() - begun, time.monotonic()
    sent = client.stats["out_msgs"]
    await depths.read()
    assert client.stats["out_msgs"] == sent and time.monotonic() - begun < CACHE_SECONDS
    await consumers(client)
    print(
        f"{FUNCTIONS} functions with calls: {first * 1000:.0f} ms, {client.stats['out_msgs'] - sent} requests when idle"
    )
    assert first < 2 and client.stats["out_msgs"] - sent <= FUNCTIONS // 256 + 1
