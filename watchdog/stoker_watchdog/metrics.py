"""A replica's own counters, in plain numbers, written out when somebody asks (contract section 7.2)."""

from __future__ import annotations

from bisect import bisect_left

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = {
    method: method.decode().lower()
    for method in (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE")
}


class Metrics:
    """Requests by method and code. Methods are lower case here, and unheard-of ones are `unknown` (quirk 10)."""

    CONTENT_TYPE = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"

    def __init__(self) -> None:
        self._slots: dict[tuple[bytes, int], list[float]] = {}

    def count(self, method: bytes, code: int, seconds: float) -> None:
        slots = self._slots.get((method, code))
        if slots is None:
            slots = self._slots[method, code] = [0] * (len(_BUCKETS) + 1) + [0.0]
        slots[bisect_left(_BUCKETS, seconds)] += 1
        slots[-1] += seconds

    def render(self, in_flight: int) -> bytes:
        """The Prometheus text format."""
        totals = ["# TYPE http_requests_total counter"]
        times = ["# TYPE http_request_duration_seconds histogram"]
        for (method, code), slots in self._slots.items():
            labels = f'code="{code}",method="{_METHODS.get(method, "unknown")}"'
            count = int(sum(slots[:-1]))
            totals.append(f"http_requests_total{{{labels}}} {count}")
            below = 0
            for bound, number in zip([*_BUCKETS, "+Inf"], slots, strict=False):
                below += int(number)
                times.append(f'http_request_duration_seconds_bucket{{{labels},le="{bound}"}} {below}')
            times.append(f"http_request_duration_seconds_sum{{{labels}}} {slots[-1]:.6f}")
            times.append(f"http_request_duration_seconds_count{{{labels}}} {count}")
        gauge = ["# TYPE http_requests_in_flight gauge", f"http_requests_in_flight {in_flight}", ""]
        return "\n".join(totals + times + gauge).encode()
