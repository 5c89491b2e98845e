"""The route table: what a proxy must know of every function, as control sends it.

A provider produces `Route` values, control numbers and sends them, proxies keep them. Plain values, so that the
table can be tested without either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from stoker_sdk.origin import ORIGIN_ANNOTATIONS, OWNER

IDEMPOTENT: Final = "stoker.dev/idempotent"
ROUTES: Final = "stoker.dev/routes"
VISIBILITY: Final = "stoker.dev/visibility"
_QUEUE_ANNOTATIONS: Final = ("stoker.dev/retries", "stoker.dev/result", IDEMPOTENT, "com.openfaas.retry.")
_PASSED_ON: Final = (*_QUEUE_ANNOTATIONS, *ORIGIN_ANNOTATIONS, ROUTES, VISIBILITY)


class Target(msgspec.Struct, frozen=True):
    """One ready replica: its id, and where it listens (`unix:/path` or `tcp:host:port`)."""

    id: str
    address: str


class Loss(msgspec.Struct, frozen=True):
    """A replica that ended unasked: why, as a code of `faults` and a line. Told once, to those whose calls it had."""

    id: str
    code: str
    reason: str


class Endpoint(msgspec.Struct, frozen=True):
    """One public address: a host in lower case without a port (`*.` stands for one label), and a path's beginning.

    `path` is empty or begins with a slash, and ends with none; it covers whole segments. `strips`: the function gets
    the rest of the path. No methods means all.
    """

    host: str
    path: str
    methods: list[str] = []
    strips: bool = False

    def __str__(self) -> str:
        return f"{self.host}{self.path}/"


class Route(msgspec.Struct, frozen=True):
    """One function. `key` is `NAME.NAMESPACE`; `timeout` is in seconds; `concurrency` is per replica, 0 no limit.

    `targets` is empty while no replica is ready: calls then wait for a wake. `failure` is set when the function
    cannot start at all, so that waiting calls are told the reason at once instead of at their deadline; `failure_code`
    is its code. `annotations` are those that say how stored calls are repeated, what is kept of calls, and who may
    call. `created_at` is when the function was first deployed. `endpoints` are its public addresses, which control
    adds when it has settled who has them.
    `revision` is the newest with a ready replica, 0 without any.
    """

    key: str
    timeout: float
    concurrency: int
    targets: list[Target]
    failure: str = ""
    failure_code: str = "cannot-start"
    losses: list[Loss] = []
    annotations: dict[str, str] = {}
    created_at: str = ""
    endpoints: list[Endpoint] = []
    revision: int = 0

    @property
    def is_private(self) -> bool:
        return is_private(self.annotations)

    @property
    def owner(self) -> str:
        """In lower case; empty for a function that nobody owns."""
        return self.annotations.get(OWNER, "").lower()


def route_annotations(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Those of a function that workers, proxies and the table of endpoints read."""
    return {name: text for name, text in (annotations or {}).items() if name.startswith(_PASSED_ON)}


def is_private(annotations: Mapping[str, str]) -> bool:
    """Anything but `public` keeps strangers out: a misspelt word must not open a function."""
    return annotations.get(VISIBILITY, "").lower() not in ("", "public")
