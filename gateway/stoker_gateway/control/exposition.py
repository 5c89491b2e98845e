"""Counts as Prometheus reads them, under the names of contract section 7.1.

`gateway_function_invocation_started` has no `_total` (section 16, quirk 9), which OpenMetrics forbids and
the library writes for no counter; so this is always the plain text format, with that one type put right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import PROCESS_COLLECTOR, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stoker_gateway.control.traffic import Kind, Traffic
from stoker_gateway.counters import BUCKETS, FunctionCounters, Timings
from stoker_sdk.function import FunctionSpec, FunctionStatus

_STARTED = "gateway_function_invocation_started"
_BOUNDS = [*(str(bound) for bound in BUCKETS[:7]), "1", "2.5", "5", "10", "+Inf"]


def expose(
    totals: Iterable[FunctionCounters],
    statuses: Iterable[FunctionStatus],
    traffic: Traffic,
    more: Iterable[Metric] = (),
) -> bytes:
    """The page of `/metrics`: calls and replicas by function, requests to the control API, `more`, this process."""
    return _plain_text(
        [*_calls(list(totals)), *_replicas(list(statuses)), *_requests(traffic), *more, *PROCESS_COLLECTOR.collect()]
    )


def _calls(totals: list[FunctionCounters]) -> Iterator[Metric]:
    ended = CounterMetricFamily("gateway_function_invocation", "Calls that ended.", labels=("function_name", "code"))
    started = Metric(_STARTED, "Calls that began.", "unknown")
    inflight = GaugeMetricFamily(
        "gateway_function_invocation_inflight", "Calls that run or wait now.", labels=("function_name",)
    )
    seconds = HistogramMetricFamily("gateway_functions_seconds", "Duration of calls.", labels=("function_name", "code"))
    for counted in totals:
        started.add_sample(_STARTED, {"function_name": counted.key}, counted.started)
        inflight.add_metric((counted.key,), counted.inflight)
        for code, timings in sorted(counted.codes.items()):
            ended.add_metric((counted.key, str(code)), timings.count)
            seconds.add_metric((counted.key, str(code)), cumulative(timings), timings.seconds)
    yield from (ended, started, inflight, seconds)


def _replicas(statuses: list[FunctionStatus]) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("gateway_service_count", "Replicas asked for.", labels=("function_name",))
    ready = GaugeMetricFamily("gateway_service_ready_count", "Replicas that are ready.", labels=("function_name",))
    least = GaugeMetricFamily("gateway_service_min", "The least replicas.", labels=("function_name",))
    load = GaugeMetricFamily(
        "gateway_service_target_load", "Load for one replica.", labels=("function_name", "scaling_type")
    )
    for status in statuses:
        labels = (f"{status.name}.{status.namespace}",)
        spec = FunctionSpec(status.name, labels=status.labels)
        wanted.add_metric(labels, status.replicas)
        ready.add_metric(labels, status.available_replicas)
        least.add_metric(labels, spec.min_replicas)
        load.add_metric((*labels, spec.scale_type), spec.scale_target)
    yield from (wanted, ready, least, load)


def _requests(traffic: Traffic) -> Iterator[Metric]:
    requests = CounterMetricFamily("http_requests", "Requests to the control API.", labels=Kind._fields)
    seconds = HistogramMetricFamily(
        "http_request_duration_seconds", "Duration of requests to the control API.", labels=Kind._fields
    )
    for kind, timings in traffic.kinds():
        labels = (kind.method, kind.path, str(kind.status))
        requests.add_metric(labels, timings.count)
        seconds.add_metric(labels, cumulative(timings), timings.seconds)
    yield from (requests, seconds)


def cumulative(timings: Timings) -> list[tuple[str, float]]:
    """By upper bound, as histograms want them."""
    below = 0
    summed: list[tuple[str, float]] = []
    for bound, count in zip(_BOUNDS, timings.buckets, strict=True):
        below += count
        summed.append((bound, below))
    return summed


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _plain_text(families: Iterable[Metric]) -> bytes:
    page = generate_latest(_Families(families))
    return page.replace(f"# TYPE {_STARTED} untyped".encode(), f"# TYPE {_STARTED} counter".encode())
