"""One function in a worker: its consumer, its slots, its calls. Lanes share nothing, so that none waits for another.

Slots are `concurrency` times ready replicas, shared by the workers; without a concurrency they are learned: few at
first, more with every success that was as quick as the first ones, half of them when the platform says "too many".
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from stoker_gateway.queue.kept import result_seconds
from stoker_gateway.queue.look_back import LookBack
from stoker_gateway.queue.outcomes import DEAD, Outcome
from stoker_gateway.queue.policy import settings_of
from stoker_gateway.queue.run import Run
from stoker_gateway.queue.subjects import CALLS, consumer_name, of_functions
from stoker_gateway.queue.sweep import Sweep
from stoker_gateway.routes import Route
from stoker_sdk.broker.requests import ask
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import key_from_route

if TYPE_CHECKING:
    from stoker_gateway.queue.worker import Worker

log = logging.getLogger("stoker.worker")

_NS: Final = 10**9
_FIRST, _MOST = 4.0, 1000.0
_PULL_SECONDS: Final = 30
_PULL_BYTES: Final = 40 * 1024 * 1024
"""More than the largest message, so that one always fits."""
_BATCH: Final = 100
_SOON_SECONDS: Final = 0.005
_ENDED: Final = (b"404", b"408")
"""How a pull ends as pulls do: its time was up."""
_LEFT: Final = re.compile(rb"\r\nNats-Pending-Messages: ([0-9]+)\r\n")
_MOST_SETTLING: Final = 1000
"""Calls that have their answer and whose outcome is not stored yet: a function's replicas do not wait for that."""
_TELL_SECONDS: Final = 10.0


class Lane:
    """Made when the first call of a function is heard of."""

    def __init__(self, worker: Worker, number: int, key: str) -> None:
        self.worker = worker
        self.key = key
        self.function = key_from_route(key)
        self.retries = settings_of({})
        self.keep_result = 0.0  # seconds
        self.runs: dict[str, Run] = {}
        self.doubtful = 0  # calls up to this sequence may have been cancelled, many at once
        self.sweep = Sweep(self.function)
        self.look_back = LookBack(self)
        self._busy = 0  # slots that are taken
        self._number = number
        self._route: Route | None = None
        self._gone_at = asyncio.get_running_loop().time()
        self._learned = _FIRST
        self._quickest = math.inf
        self._slowing = False
        self._asked = 0  # calls that we have asked for, and that have not come
        self._generation = 0
        self._heard_at = 0.0
        self._open = False
        self._pulls_soon = False
        self._opening: asyncio.Task[None] | None = None
        self._told_at = -math.inf
        self._untold = 0

    def __repr__(self) -> str:
        return f"<Lane {self.key} running={self._busy} of {self.slots}, settling={len(self.runs) - self._busy}>"

    @property
    def slots(self) -> int:
        """How many calls this worker runs at a time. A function at rest gets as many as one replica takes."""
        route = self._route
        if route is None or not route.concurrency:
            return int(self._learned)
        return max(1, math.ceil(route.concurrency * max(1, len(route.targets)) / self.worker.settings.workers))

    @property
    def is_gone(self) -> bool:
        """Whether its function was removed, and has not come back for so long that its calls are dead."""
        return self._route is None and not self._waits_for_function

    @property
    def _waits_for_function(self) -> bool:
        gone_for = asyncio.get_running_loop().time() - self._gone_at
        return self._route is None and gone_for < self.worker.settings.removed_after

    def update(self, route: Route | None) -> None:
        if route is None and self._route is not None:
            self._gone_at = asyncio.get_running_loop().time()
        self._route = route
        if self._waits_for_function:
            asyncio.get_running_loop().call_later(self.worker.settings.removed_after + 0.1, self.pull)
        annotations = route.annotations if route else {}
        self.retries = settings_of(annotations)
        self.keep_result = result_seconds(annotations)
        self.pull()

    # The consumer

    def open(self) -> None:
        """Make the consumer, however long that takes, and pull."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._make_consumer(), name=f"lane {self.key}")

    async def _make_consumer(self) -> None:
        name = consumer_name(self.function)
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "filter_subject": of_functions("call", *self.function),
            "ack_wait": int(self.worker.settings.ack_wait * _NS),
            "max_ack_pending": 100_000,
            "max_deliver": -1,
        }
        while True:
            try:
                request = {"stream_name": CALLS, "config": config}
                error = await ask(self.worker.client, f"CONSUMER.DURABLE.CREATE.{CALLS}.{name}", request)
                reason = error.description if error else ""
            except Unavailable as refusal:
                reason = str(refusal)
            if not reason:
                break
            log.warning("%s: no consumer yet: %s", self.key, reason)
            await asyncio.sleep(1)
        self._open = True
        self.reconnected()

    def reconnected(self) -> None:
        """The broker has forgotten our pulls."""
        self._generation += 1
        self._asked = 0
        self.sweep.due = True
        self.pull()

    def look_after(self, now: float) -> None:
        """A pull always ends with a word; one that has not is lost."""
        if self._asked and now - self._heard_at > _PULL_SECONDS + 5:
            self.reconnected()

    def pull(self) -> None:
        """Ask for as many calls as there are free slots: at once when that is worth a request, else in a moment."""
        free = self._free()
        if free >= max(1, self.slots // 4):
            self._pull(free)
        elif free > 0 and not self._pulls_soon:
            self._pulls_soon = True
            asyncio.get_running_loop().call_later(_SOON_SECONDS, self._pull_few)

    def _pull_few(self) -> None:
        self._pulls_soon = False
        if (free := self._free()) > 0:
            self._pull(free)

    def _free(self) -> int:
        """Slots for which no call runs and none is asked for."""
        if not self._open or self.worker.stopping or self._waits_for_function:
            return 0
        if len(self.runs) - self._busy > _MOST_SETTLING:
            return 0
        return self.slots - self._busy - self._asked

    def _pull(self, free: int) -> None:
        batch = min(free, _BATCH)
        self._asked += batch
        self._heard_at = asyncio.get_running_loop().time()
        request = {"batch": batch, "expires": _PULL_SECONDS * _NS, "max_bytes": _PULL_BYTES}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{CALLS}.{consumer_name(self.function)}"
        reply = f"{self.worker.inbox}.{self._number}.{self._generation}"
        self.worker.link.publish(subject.encode(), msgspec.json.encode(request), reply.encode())

    def delivered(self, id: str, reply: bytes, headers: bytes, payload: bytes) -> None:
        """A call has come; `reply` is where the broker hears of it."""
        self._heard_at = asyncio.get_running_loop().time()
        self._asked = max(0, self._asked - 1)
        if self.worker.stopping:
            self.worker.publisher.tell(reply, b"-NAK")
        elif self._waits_for_function and id not in self.runs:  # an answer to a pull from before
            self.worker.publisher.tell(reply, b'-NAK {"delay": 5000000000}')
        elif (run := self.runs.get(id)) is not None:
            run.delivered_again(reply)
        else:
            run = self.runs[id] = Run(self, id, reply, headers, payload)
            self._busy += 1
            run.begin()
        self.pull()

    def pull_ended(self, generation: int, headers: bytes) -> None:
        """A pull was not, or not wholly, served: `NATS/1.0 STATUS reason`, and headers."""
        if generation != self._generation:
            return
        if headers[9:12] in _ENDED:
            left = _LEFT.search(headers)
            self._asked = max(0, self._asked - int(left[1])) if left else 0
            self.pull()
        else:
            log.debug("%s: pull ended: %s", self.key, headers)
            self._asked = 0
            asyncio.get_running_loop().call_later(0.5, self.open)

    # Its calls

    def answered(self) -> None:
        """A call needs its slot no more: what is left is to store how it ended."""
        self._busy -= 1
        self.pull()

    def ended(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        self.pull()

    def ended_as(self, outcome: Outcome) -> None:
        """Count it, and tell of dead ones: the first at once, then how many more there are."""
        self.worker.counting.ended(self.key, outcome.state)
        if outcome.state != DEAD:
            return
        self._untold += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TELL_SECONDS:
            more = f" ({self._untold - 1} more since the last such line)" if self._untold > 1 else ""
            log.warning("call %s of %s is dead: %s%s", outcome.id, self.key, outcome.reason, more)
            self._told_at, self._untold = now, 0

    def learn(self, seconds: float, *, too_many: bool) -> None:
        """An answer has come. Growth ends when more calls at a time only make each slower."""
        if too_many:
            self._learned, self._slowing = max(1.0, self._learned / 2), True
            return
        self._quickest = min(self._quickest, seconds)
        busy = self._busy > self._learned / 2
        if busy and seconds < 2 * self._quickest + 0.02:
            self._learned = min(_MOST, self._learned + (1 / self._learned if self._slowing else 1.0))
