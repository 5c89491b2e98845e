"""Counts of the control API's own requests, for `http_requests_total` and `http_request_duration_seconds`.

Paths are the routes' patterns without the names in them, and methods the known ones, so that no caller can
make the number of series grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stoker_gateway.counters import Timings

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Kind(NamedTuple):
    """What requests are counted by: the labels of contract section 7.1."""

    method: str
    path: str
    status: int


class Traffic:
    """One histogram per kind of request."""

    def __init__(self) -> None:
        self._timings: dict[Kind, Timings] = {}

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        kind = Kind(method if method in _METHODS else "unknown", path, status)
        self._timings.setdefault(kind, Timings()).observe(seconds)

    def kinds(self) -> Iterator[tuple[Kind, Timings]]:
        yield from sorted(self._timings.items())
