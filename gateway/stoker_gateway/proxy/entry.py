"""One function as a proxy sees it: its targets, the calls that run, the calls that wait, and its counters."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from stoker_gateway.counters import BUCKETS, MAX_FAULTS, FunctionCounters, Timings
from stoker_gateway.routes import IDEMPOTENT, Endpoint, Loss, Route
from stoker_sdk.faults import Fault
from stoker_sdk.units import format_rfc3339

if TYPE_CHECKING:
    from stoker_gateway.proxy.call import Call


_MAX_LOSSES = 8
_NO_LOSSES: dict[str, Loss] = {}


class ReplicaTarget:
    """A ready replica and how many of our calls it has now."""

    __slots__ = ("address", "id", "inflight", "suspect_until")

    def __init__(self, id: str, address: str) -> None:
        self.id = id
        self.address = address
        self.inflight = 0
        self.suspect_until = 0.0

    def __repr__(self) -> str:
        return f"<ReplicaTarget {self.id} inflight={self.inflight}>"


class Entry:
    """What the table says of a function, and what is going on with it in this proxy."""

    __slots__ = (
        "bereaved",
        "calls",
        "codes",
        "concurrency",
        "endpoints",
        "failure",
        "failure_code",
        "faults",
        "first_call",
        "guarded",
        "idempotent",
        "inflight",
        "is_new",
        "key",
        "losses",
        "owner",
        "private",
        "removed",
        "revision",
        "serving",
        "shortened",
        "started",
        "started_before",
        "streams",
        "targets",
        "timeout",
        "waiting",
        "woken",
    )

    def __init__(self, key: str, *, is_new: bool = False) -> None:
        """`is_new`: the function was deployed while this proxy was there."""
        self.key = key
        self.is_new = is_new
        self.timeout = 0.0
        self.concurrency = 0
        self.failure = ""
        self.failure_code = ""
        self.idempotent = False
        self.private = False
        self.owner = ""
        self.guarded = False  # it matters who calls, for one of the two above
        self.endpoints: list[Endpoint] = []
        self.targets: list[ReplicaTarget] = []
        self.waiting: deque[Call] = deque()
        # Insertion order is deadline order, since all calls of a function have the same timeout; `shortened` tells
        # that calls from before a shorter timeout are among them.
        self.calls: dict[Call, float] = {}
        self.streams: dict[Call, float] = {}
        self.inflight = 0
        self.woken = False
        self.removed = False
        self.serving = False
        self.shortened = False
        self.started = 0
        self.codes: dict[int, list[float]] = {}
        # The newest revision that was ready, how many calls there were before it, and the Unix time of its first call:
        # 0 while there is none, below 0 where it may have had one before this proxy was there.
        self.revision = 0
        self.started_before = 0
        self.first_call = 0
        # What went wrong: the latest by code, replicas that ended unasked by id, and the calls that wait to be told
        # why theirs did. Made when first needed: most functions never do.
        self.faults: dict[str, tuple[str, int, str, str, int]] | None = None
        self.losses = _NO_LOSSES
        self.bereaved: dict[Call, float] | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.key} targets={self.targets} inflight={self.inflight} waiting={len(self.waiting)}>"

    def update(self, route: Route) -> list[str]:
        """Take over a new route; returns the addresses that have left."""
        known = {target.id: target for target in self.targets}
        self.shortened = bool(self.calls) and (self.shortened or route.timeout < self.timeout)
        self.timeout = route.timeout
        self.concurrency = route.concurrency
        self.failure = route.failure
        self.failure_code = route.failure_code
        self.idempotent = route.annotations.get(IDEMPOTENT, "").lower() == "true"
        self.private = route.is_private
        self.owner = route.owner
        self.guarded = self.private or self.owner != ""
        for loss in route.losses:
            self._remember(loss)
        if route.revision not in (0, self.revision):
            self.first_call = 0 if self.revision or self.is_new else -1
            self.started_before = self.started - len(self.waiting)
            self.revision = route.revision
        self.targets = [
            known.pop(target.id) if target.id in known else ReplicaTarget(target.id, target.address)
            for target in route.targets
        ]
        if self.targets or self.failure:
            self.woken = False
        return [target.address for target in known.values()]

    def choose(self, now: float) -> ReplicaTarget | None:
        """The ready target with the fewest of our calls in flight that has room; None if there is none."""
        targets = self.targets
        if len(targets) == 1:
            best = targets[0]
        elif targets:
            best = min(targets, key=_load)
        else:
            return None
        if best.suspect_until > now:
            trusted = [target for target in targets if target.suspect_until <= now]
            if not trusted:
                return None
            best = min(trusted, key=_load)
        if self.concurrency and best.inflight >= self.concurrency:
            return None
        if len(targets) > 1:
            # Equal loads are taken in turn: the one chosen goes to the end.
            targets.remove(best)
            targets.append(best)
        return best

    def count(self, code: int, seconds: float) -> None:
        """A call has ended. Per code: one slot a bucket, then the sum of seconds."""
        slots = self.codes.get(code)
        if slots is None:
            slots = self.codes[code] = [0] * (len(BUCKETS) + 1) + [0.0]
        slots[bisect_left(BUCKETS, seconds)] += 1
        slots[-1] += seconds

    def _remember(self, loss: Loss) -> None:
        """A replica ended unasked: tell the calls that it had, also those that notice only later."""
        self.losses = {**dict(list(self.losses.items())[1 - _MAX_LOSSES :]), loss.id: loss}
        for call in [call for call in self.bereaved or () if call.lost == loss.id]:
            call.lost_to(loss)

    def note_fault(self, code: str, side: str, status: int, message: str, call: str, nanoseconds: int) -> None:
        """Remember the latest fault of this code, for `describe`."""
        if self.faults is None:
            self.faults = {}
        if code in self.faults or len(self.faults) < MAX_FAULTS:
            self.faults[code] = (side, status, message, call, nanoseconds)

    def counters(self) -> FunctionCounters:
        """Asked for each second while calls come, so the time of a first call is that exact."""
        if self.first_call == 0 and self.revision and self.started > self.started_before:
            self.first_call = int(time.time())
        return FunctionCounters(
            key=self.key,
            started=self.started,
            inflight=self.inflight,
            revision=self.revision,
            first_call=max(self.first_call, 0),
            codes={
                code: Timings(buckets=[int(n) for n in slots[:-1]], seconds=slots[-1])
                for code, slots in self.codes.items()
            },
            faults=[
                Fault(code, side, status, message, format_rfc3339(nanoseconds), call)
                for code, (side, status, message, call, nanoseconds) in (self.faults or {}).items()
            ],
        )


def _load(target: ReplicaTarget) -> int:
    return target.inflight
