"""Tells forges how runs stand: the newest change of each run, again with growing pauses until the forge has taken it.

What was told is noted with the run, so a restart goes on where a kill came between, and the last word of a run is never
lost. A forge that is told twice must not mind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from stoker_builder.pipeline.forge import Forge, NotNow
from stoker_builder.pipeline.runs import Runs
from stoker_sdk.runs import Run

log = logging.getLogger("stoker.pipeline")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


class Reporter:
    """One task for each run that has news for its forge."""

    def __init__(self, runs: Runs, forges: Mapping[str, Forge], first_pause: float = _FIRST_PAUSE) -> None:
        self._first_pause = first_pause
        self._runs = runs
        self._forges = forges
        self._tasks: dict[int, asyncio.Task[None]] = {}
        runs.changed = self.tell

    @property
    def is_idle(self) -> bool:
        return not self._tasks

    def take_up(self) -> None:
        """What an earlier life had still to tell."""
        for run in self._runs.all():
            self.tell(run)

    def tell(self, run: Run) -> None:
        forge = self._forges.get(run.push.forge)
        if forge is not None and forge.reports and run.id not in self._tasks and run.reported < run.change:
            task = asyncio.create_task(self._tell(run.id, forge), name=f"report run {run.id}")
            self._tasks[run.id] = task

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _tell(self, id: int, forge: Forge) -> None:
        pause = self._first_pause
        try:
            while (run := self._runs.get(id)).reported < run.change:
                try:
                    await forge.report(run)
                except Exception as error:  # whatever it is, the forge has not heard it
                    log.warning("run %s cannot be reported to %s: %s", id, forge.name, error)
                    await asyncio.sleep(max(pause, error.seconds if isinstance(error, NotNow) else 0.0))
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    self._runs.reported(run)
                    pause = self._first_pause
        finally:
            self._tasks.pop(id, None)
