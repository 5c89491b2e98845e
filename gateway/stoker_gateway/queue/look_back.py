"""Calls that may have been delivered before: which have their outcome, and which have failed, and how often.

After a start or a broken connection that is every call of a backlog, so it is asked for many at a time: while one
answer is on its way, the next question is gathered.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.subjects import ATTEMPTS, OUTCOMES, attempt_subject, outcome_subject
from stoker_sdk.broker.lookup import all_of, subjects_of
from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from stoker_gateway.queue.lane import Lane
    from stoker_gateway.queue.run import Run

log = logging.getLogger("stoker.worker")

_MOST: Final = 200


class LookBack:
    """One lane's. Each run that asks is told once: `had_ended`, `had_attempts`, or `cannot_look_back`."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._waiting: list[Run] = []
        self._asking: asyncio.Task[None] | None = None

    def ask(self, run: Run) -> None:
        self._waiting.append(run)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_all(), name=f"look back {self._lane.key}")

    async def _ask_all(self) -> None:
        while self._waiting:
            runs, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                await self._ask(runs)
            except Unavailable as error:
                log.warning("%d calls of %s wait: %s", len(runs), self._lane.key, error)
                for run in runs:
                    run.cannot_look_back()

    async def _ask(self, runs: list[Run]) -> None:
        client, function = self._lane.worker.client, self._lane.function
        ended = await subjects_of(client, OUTCOMES, [outcome_subject(function, run.id) for run in runs])
        open = [run for run in runs if outcome_subject(function, run.id) not in ended]
        found = await all_of(client, ATTEMPTS, [attempt_subject(function, run.id) for run in open])
        attempts = {one.subject: one.data for one in found}
        for run in runs:
            if outcome_subject(function, run.id) in ended:
                run.had_ended()
            else:
                run.had_attempts(attempts.get(attempt_subject(function, run.id), b"[]"))
