"""Gateways that share a real broker tell each other how many calls ended at each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker import RunningBroker

from stoker_gateway.control.shared_counts import SUBJECT, SharedCounts
from stoker_gateway.counters import FunctionCounters, MemoryCounters
from stoker_sdk.errors import Unavailable


class Gateway:
    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker
        self.ended: dict[str, int] = {}
        self.counts: SharedCounts

    async def totals(self) -> list[FunctionCounters]:
        made = [FunctionCounters(key) for key in self.ended]
        for one in made:
            for _ in range(self.ended[one.key]):
                one.observe(200, 0.001)
        return made

    @asynccontextmanager
    async def runs(self, gone_after: float = 30.0) -> AsyncIterator[None]:
        client = await self._broker.client()
        self.counts = SharedCounts(lambda: client, self, every=0.02, gone_after=gone_after)
        task = asyncio.ensure_future(self.counts.run())
        try:
            yield
        finally:
            task.cancel()
            await client.close()

    async def until(self, **others: int) -> None:
        """Keys are the functions' names, in the namespace `fn`."""
        wanted = {f"{name}.fn": count for name, count in others.items()}
        await until(lambda: dict(self.counts.others()) == wanted)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_each_counts_what_ended_at_the_others_and_not_its_own(broker: RunningBroker) -> None:
    one, two, three = (Gateway(broker) for _ in range(3))
    async with one.runs(), two.runs():
        one.ended, two.ended = {"a.fn": 1, "b.fn": 2}, {"a.fn": 10}
        await one.until(a=10)
        await two.until(a=1, b=2)
        async with three.runs():
            three.ended = {"a.fn": 100}
            await three.until(a=11, b=2)  # also what was counted before it began to listen
            one.ended["b.fn"] = 3
            await three.until(a=11, b=3)
            await one.until(a=110)


async def test_many_functions_come_in_several_messages(broker: RunningBroker) -> None:
    one, two = Gateway(broker), Gateway(broker)
    one.ended = {f"f{number}.fn": 1 for number in range(12_000)}
    async with one.runs(), two.runs():
        await until(lambda: len(two.counts.others()) == 12_000)


async def test_what_a_gateway_counted_is_forgotten_some_time_after_its_end(broker: RunningBroker) -> None:
    one, two = Gateway(broker), Gateway(broker)
    two.ended = {"a.fn": 5}
    async with one.runs(gone_after=0.5):
        async with two.runs():
            await one.until(a=5)
            await asyncio.sleep(0.6)
            assert one.counts.others() == {"a.fn": 5}  # it is silent about what does not change, and lives
        await one.until()


async def test_what_is_no_count_is_passed_over_and_a_broker_that_restarts_is_found_again(broker: RunningBroker) -> None:
    one, two = Gateway(broker), Gateway(broker)
    two.ended = {"a.fn": 5}
    stranger = await broker.client()
    async with one.runs(), two.runs():
        for rubbish in (b"", b"{", b"5", b'{"gateway": 1}', b"\xff", b'{"gateway": "x", "ended": {"a.fn": "many"}}'):
            await stranger.publish(SUBJECT, rubbish)
        await one.until(a=5)
        broker.kill()
        broker.start()
        two.ended = {"a.fn": 6}
        await one.until(a=6)


async def test_without_a_broker_there_are_no_others() -> None:
    def away() -> None:
        raise Unavailable("the broker does not answer")

    counts = SharedCounts(away, MemoryCounters(), every=0.01)  # type: ignore[arg-type]
    task = asyncio.ensure_future(counts.run())
    await asyncio.sleep(0.05)
    assert counts.others() == {} and not task.done()
    task.cancel()
