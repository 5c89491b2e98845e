"""Async calls as Prometheus reads them: names of contract section 7.3 where it has them, `stoker_…` for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from stoker_gateway.control.call_metrics import CallFigures
from stoker_gateway.control.exposition import cumulative
from stoker_gateway.counters import Timings
from stoker_gateway.queue.counters import CallCounters
from stoker_gateway.queue.depths import Depth
from stoker_gateway.queue.outcomes import DEAD, DONE
from stoker_sdk.names import FunctionKey

QUEUE: Final = "faas-request"
"""The name of the contract's one queue, for dashboards that ask for it."""


def families(figures: CallFigures, now: float) -> Iterator[Metric]:
    """`now` is Unix time in seconds. What is not known now is left out: a gap is the truth, a zero is not."""
    yield from _counts(figures.counts)
    yield from _reconnects(figures.reconnects)
    yield _missed_ticks(figures.missed)
    if figures.depths is not None:
        yield from _waiting(figures.depths, now)


def _counts(totals: list[CallCounters]) -> Iterator[Metric]:
    queue = ("queue_name", "function_name")
    submitted = CounterMetricFamily("queue_worker_messages_submitted", "Calls that were stored.", labels=queue)
    processed = CounterMetricFamily("queue_worker_messages_processed", "Calls that ended by running.", labels=queue)
    inflight = GaugeMetricFamily("queue_worker_function_invocation_inflight", "Calls that run now.", labels=queue)
    ended = _counter("stoker_calls_ended", "Outcomes: done, dead, cancelled.", "state")
    redelivered = _counter("stoker_calls_redelivered", "Deliveries to workers after a call's first.")
    callbacks = _counter("stoker_callbacks", "Callbacks that were delivered, or failed.", "state")
    for one in totals:
        submitted.add_metric((QUEUE, one.key), one.enqueued[202].count if 202 in one.enqueued else 0)
        processed.add_metric((QUEUE, one.key), one.ended.get(DONE, 0) + one.ended.get(DEAD, 0))
        inflight.add_metric((QUEUE, one.key), one.running)
        redelivered.add_metric((one.key,), one.redelivered)
        for family, by_state in ((ended, one.ended), (callbacks, one.callbacks)):
            for state, number in sorted(by_state.items()):
                family.add_metric((one.key, state), number)
    yield from (submitted, processed, inflight, ended, redelivered, callbacks)
    yield _durations("stoker_call_enqueue_seconds", "From an async request to its answer.", _enqueued(totals))
    yield _durations("stoker_call_attempt_seconds", "Attempts of stored calls; code 0: no answer.", _attempts(totals))


def _enqueued(totals: list[CallCounters]) -> Iterator[tuple[str, int, Timings]]:
    return ((one.key, status, timings) for one in totals for status, timings in sorted(one.enqueued.items()))


def _attempts(totals: list[CallCounters]) -> Iterator[tuple[str, int, Timings]]:
    return ((one.key, status, timings) for one in totals for status, timings in sorted(one.attempts.items()))


def _durations(name: str, text: str, observed: Iterable[tuple[str, int, Timings]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("function_name", "code"))
    for key, code, timings in observed:
        family.add_metric((key, str(code)), cumulative(timings), timings.seconds)
    return family


def _waiting(depths: Mapping[FunctionKey, Depth], now: float) -> list[Metric]:
    pending = GaugeMetricFamily(
        "queue_worker_pending_messages", "Calls that have not ended.", labels=("queue_name", "function_name")
    )
    oldest = GaugeMetricFamily("stoker_calls_oldest_seconds", "Age of the oldest of them.", labels=("function_name",))
    for key, depth in sorted(depths.items()):
        pending.add_metric((QUEUE, str(key)), depth.calls)
        oldest.add_metric((str(key),), max(0.0, now - depth.oldest) if depth.oldest else 0.0)
    return [pending, oldest]


def _missed_ticks(missed: Mapping[FunctionKey, int]) -> Metric:
    family = _counter("stoker_schedule_missed", "Ticks of schedules that were missed.")
    for key, number in sorted(missed.items()):
        family.add_metric((str(key),), number)
    return family


def _reconnects(reconnects: Mapping[str, int]) -> Iterator[Metric]:
    for who in ("gateway", "queue_worker"):
        name = f"{who}_nats_reconnect"
        yield CounterMetricFamily(name, "Connections to the broker that came back.", value=reconnects.get(who, 0))


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=("function_name", *labels))
