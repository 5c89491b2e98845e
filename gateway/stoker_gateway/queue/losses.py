"""Runs that ended without an answer, because the worker or the proxy that carried them ended first. Pure.

A call may be what kills them, again and again, so it is dead after `MOST_LOST` such runs. They are told apart from
deliveries that ran nothing (the function was not ready, the worker stopped), which cost nothing:

* a worker whose proxy goes notes the loss;
* a worker that is killed notes nothing. So where an earlier delivery has left no trace, the next run is noted before
  it begins, and whoever finds such a note without an end counts it as lost. A call that runs for the first time, or
  that only failed so far, pays nothing for this; the first loss of a killed worker therefore goes uncounted.

Who else ran in what was killed must not die with the culprit: calls with `SUSPECT` losses begin one at a time in each
worker, and have it for themselves, among their like, for `ALONE_SECONDS`.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from stoker_gateway.queue.policy import Dead, Retry
from stoker_sdk.messages import CallAttempt

MOST_LOST: Final = 5
SUSPECT: Final = 2
ALONE_SECONDS: Final = 30.0
REASON: Final = "no answer: the proxy or worker that ran it ended"
_PAUSE: Final = 1.0


def is_noted(deliveries: int, attempts: list[CallAttempt]) -> bool:
    """Whether this run is to be noted before it begins: an earlier delivery has left no trace."""
    return deliveries - 1 > len(attempts)


def begun(attempts: list[CallAttempt], now: str) -> list[CallAttempt]:
    """The attempts with one that begins now, RFC 3339."""
    return [*attempts, CallAttempt(len(attempts) + 1, now, "")]


def closed(attempts: list[CallAttempt]) -> list[CallAttempt]:
    """The attempts as a later delivery finds them: what has begun and not ended is lost."""
    return [one if one.ended_at or one.lost else replace(one, lost=True, reason=REASON) for one in attempts]


def count(attempts: list[CallAttempt]) -> int:
    return sum(one.lost for one in attempts)


def after(attempts: list[CallAttempt]) -> Retry | Dead:
    """What follows the last of these attempts, which was lost."""
    lost = count(attempts)
    if lost < MOST_LOST:
        return Retry(_PAUSE)
    return Dead(f"{lost} times the proxy or worker that ran it ended before an answer came: the call may be the cause")


class Quarantine:
    """Of one worker: lets suspects in, one at a time. Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._id = ""
        self._until = 0.0

    def enter(self, id: str, now: float) -> bool:
        if self._id not in ("", id) and now < self._until:
            return False
        self._id, self._until = id, now + ALONE_SECONDS
        return True

    def leave(self, id: str) -> None:
        if self._id == id:
            self._id = ""
