"""Counters add up, whatever process they come from."""

from __future__ import annotations

import msgspec

from stoker_gateway.counters import BUCKETS, FunctionCounters, MemoryCounters, Timings, add_up


def test_a_duration_falls_into_the_first_bucket_that_holds_it() -> None:
    timings = Timings()
    for seconds in (0.0, 0.005, 0.0051, 10.0, 10.1):
        timings.observe(seconds)
    assert timings.buckets == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert timings.count == 5 and len(timings.buckets) == len(BUCKETS) + 1


def test_parts_add_up_by_key_and_code_and_stay_as_they_are() -> None:
    first, second = FunctionCounters("a.x", 2, 1), FunctionCounters("a.x", 3, 0)
    first.observe(200, 0.1)
    second.observe(200, 0.2)
    second.observe(500, 1.0)
    before = msgspec.json.encode([first, second])
    summed = add_up([[first, FunctionCounters("b.x", 1)], [second]])
    assert [(one.key, one.started, one.inflight, one.ended) for one in summed] == [
        ("a.x", 5, 1, 3),
        ("b.x", 1, 0, 0),
    ]
    assert {code: timings.count for code, timings in summed[0].codes.items()} == {200: 2, 500: 1}
    assert msgspec.json.encode([first, second]) == before


def test_counters_travel_as_json() -> None:
    counted = FunctionCounters("a.x", 1)
    counted.observe(200, 0.1)
    assert msgspec.json.decode(msgspec.json.encode(counted), type=FunctionCounters) == counted


async def test_calls_are_in_flight_from_start_to_end() -> None:
    counters = MemoryCounters()
    counters.start("a.x")
    counters.start("a.x")
    counters.end("a.x", 200, 0.1)
    (total,) = await counters.totals()
    assert (total.started, total.inflight, total.ended) == (2, 1, 1)
