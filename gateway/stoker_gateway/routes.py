"""The route table: what a proxy must know of every function, as control sends it.

A provider produces `Route` values, control numbers and sends them, proxies keep them. Plain values, so that the
table can be tested without either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

IDEMPOTENT: Final = "stoker.dev/idempotent"
_QUEUE_ANNOTATIONS: Final = ("stoker.dev/retries", "stoker.dev/result", IDEMPOTENT, "com.openfaas.retry.")


class Target(msgspec.Struct, frozen=True):
    """One ready replica: its id, and where it listens (`unix:/path` or `tcp:host:port`)."""

    id: str
    address: str


class Loss(msgspec.Struct, frozen=True):
    """A replica that ended unasked: why, as a code of `faults` and a line. Told once, to those whose calls it had."""

    id: str
    code: str
    reason: str


class Route(msgspec.Struct, frozen=True):
    """One function. `key` is `NAME.NAMESPACE`; `timeout` is in seconds; `concurrency` is per replica, 0 no limit.

    `targets` is empty while no replica is ready: calls then wait for a wake. `failure` is set when the function
    cannot start at all, so that waiting calls are told the reason at once instead of at their deadline; `failure_code`
    is its code. `annotations` are those that say how stored calls are repeated, and what is kept of calls.
    """

    key: str
    timeout: float
    concurrency: int
    targets: list[Target]
    failure: str = ""
    failure_code: str = "cannot-start"
    losses: list[Loss] = []
    annotations: dict[str, str] = {}


def queue_annotations(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Those of a function that workers and proxies read."""
    return {name: text for name, text in (annotations or {}).items() if name.startswith(_QUEUE_ANNOTATIONS)}
