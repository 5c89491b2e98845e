"""All runs: accepted, put in line, run, followed, ended. What somebody is told here is stored before.

The truth is in memory and, a moment later, in the store; the end of a run is stored first. After a kill the store says
which runs were open: those that waited wait again, those that ran run again from their beginning, which does no harm,
because builds and deploys of the same content change nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import msgspec

from stoker_builder.pipeline.execution import Ended, Executor
from stoker_builder.pipeline.forge import NOWHERE, Forge
from stoker_builder.pipeline.policy import Limits, after_a_kill, choose, overtaken, same_push, superseded_by
from stoker_builder.pipeline.run_log import RunLog
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.errors import Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.runs import CANCELLED, FAILED, GONE, QUEUED, RUNNING, SUPERSEDED, Push, Run, RunLine
from stoker_sdk.units import format_rfc3339

log = logging.getLogger("stoker.pipeline")

_RETRY_SECONDS: Final = 0.5
_REMEMBERED: Final = 5000
_SERVED: Final = 100


class Runs:
    """`forges` by name. `changed` is called with each run whose state is new and stored, for the reporter."""

    def __init__(self, store: RunStore, forges: Mapping[str, Forge], executor: Executor, limits: Limits) -> None:
        self._store = store
        self._forges = forges
        self._executor = executor
        self._limits = limits
        self._runs: dict[int, Run] = {}
        self._logs: dict[int, RunLog] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._served: list[str] = []
        self._news = asyncio.Event()
        self._finishing: set[int] = set()
        self._accepting = asyncio.Lock()
        self._unstored: dict[int, Run] = {}
        self._writing: asyncio.Task[None] | None = None
        self._stopping = False
        self.changed: Callable[[Run], None] = lambda run: None

    async def start(self) -> None:
        """Take up what an earlier life left. Raises `Unavailable`."""
        self._runs = {run.id: run for run in await self._store.open()}
        for run in [run for run in self._runs.values() if run.state == RUNNING]:
            state, reason = after_a_kill(run)
            ended = _now() if state == FAILED else ""
            self._change(run, state=state, reason=reason, ended_at=ended, attempt=run.attempt + (state == QUEUED))
        self._schedule()

    async def close(self) -> None:
        """Stop what runs, which waits in the store for the next life, and is not counted as an attempt."""
        self._stopping = True
        for id, task in list(self._tasks.items()):
            if id not in self._finishing:
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._writing is not None:
            await self._writing
        await self._store.close()

    # What others ask

    @property
    def is_idle(self) -> bool:
        return not self._unstored and not any(run.is_open for run in self._runs.values())

    def all(self) -> list[Run]:
        """The newest first."""
        return sorted(self._runs.values(), key=lambda run: run.id, reverse=True)

    def get(self, id: int) -> Run:
        """Raises `NotFound`."""
        run = self._runs.get(id)
        if run is None:
            raise NotFound(f"there is no run {id}: `stoker runs list` shows those of the last 30 days")
        return run

    async def check(self) -> None:
        """Raises `Unavailable` when a run could not be stored now."""
        await self._store.next_id(0)

    async def accept(self, push: Push, *, retry_of: int = 0, at_head: bool = False) -> Run:
        """The run of this push, stored: a new one, or the one that it has. Raises `Unavailable`: nothing is stored.

        `at_head` says that the branch is surely there now, so that what waits of it is superseded at once. Else that is
        found out when the run begins.
        """
        async with self._accepting:
            known = same_push(push, self._runs.values())
            if known is not None and not retry_of:
                return known
            if sum(run.state == QUEUED for run in self._runs.values()) >= self._limits.waiting:
                raise Unavailable(f"{self._limits.waiting} runs are waiting already: push again later")
            id = await self._store.next_id(max(self._runs, default=0))
            run = Run(id, push, created_at=_now(), retry_of=retry_of)
            await self._store.put(run)
            self._runs[id] = run
        self._forget_old()
        if at_head:
            self._supersede_others(run)
        self.changed(run)
        self._schedule()
        return run

    async def retry(self, id: int) -> Run:
        """Raises `NotFound`, `Conflict` and `Unavailable`."""
        run = self.get(id)
        if run.is_open:
            raise Conflict(f"run {id} is {run.state}: it can be tried again when it has ended")
        return await self.accept(run.push, retry_of=id)

    async def cancel(self, id: int) -> Run:
        """Raises `NotFound`, and `Conflict` when it has ended."""
        run = self.get(id)
        if not run.is_open:
            raise Conflict(f"run {id} is {run.state} already")
        task = self._tasks.get(id)
        if id in self._finishing:
            raise Conflict(f"run {id} is just ending")
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            await self._finish(run, Ended(CANCELLED, "cancelled before it began"))
        return self.get(id)

    async def lines(self, id: int) -> list[RunLine]:
        """The log so far. Raises `NotFound` and `Unavailable`."""
        self.get(id)
        kept = self._logs.get(id)
        return list(kept.lines) if kept is not None else await self._store.lines(id)

    async def follow(self, id: int) -> AsyncIterator[RunLine | Run]:
        """The log from its beginning, and the run at each change of its state; the last item is the ended run.

        Raises `NotFound` and `Unavailable`.
        """
        told, state = 0, ""
        while True:
            news, run = self._news, self.get(id)
            kept = self._logs.get(id)
            lines = kept.lines if kept is not None else await self._store.lines(id) if not run.is_open else []
            for line in lines[told:]:
                told += 1
                yield line
            if run.state != state:
                state = run.state
                yield run
            if not run.is_open:
                return
            await news.wait()

    def reported(self, told: Run) -> None:
        """The forge was told of the run as it was then."""
        run = self.get(told.id)
        self._change(run, reported=told.change, change=run.change, news=False)

    # What happens

    def _schedule(self) -> None:
        if self._stopping:
            return
        for run in choose(list(self._runs.values()), self._limits, self._served):
            self._served = [*self._served[-_SERVED:], run.push.owner]
            self._logs[run.id] = self._log_of(run.id)
            self._change(run, state=RUNNING, started_at=_now(), functions=[], seconds={})
            task = asyncio.create_task(self._run(run.id), name=f"run {run.id}")
            self._tasks[run.id] = task

    def _log_of(self, id: int) -> RunLog:
        return RunLog(lambda lines: self._store.add_lines(id, lines), self._tell)

    async def _run(self, id: int) -> None:
        try:
            ended = await self._execute(id)
        except asyncio.CancelledError:
            if self._stopping:
                self._change(self.get(id), state=QUEUED)
                return
            ended = Ended(CANCELLED, "cancelled")
        except StokerError as error:
            ended = Ended(FAILED, str(error))
        except Exception:
            log.exception("run %s broke", id)
            ended = Ended(FAILED, "the run broke by a fault of the platform: its log says more")
        self._finishing.add(id)
        try:
            await self._finish(self.get(id), ended)
        finally:
            self._finishing.discard(id)
            self._tasks.pop(id, None)
            self._schedule()

    async def _execute(self, id: int) -> Ended:
        run, said = self.get(id), self._logs[id]
        forge = self._forges.get(run.push.forge)
        if forge is None:
            return Ended(FAILED, f"this platform has no connection to {run.push.forge!r} any more")
        if why := await self._overtaken(forge, run):
            return Ended(SUPERSEDED, why)
        self._supersede_others(run)
        said.say(f"run {run.id}: {run.title}" + (f", attempt {run.attempt}" if run.attempt > 1 else ""))

        def note(**changes: Any) -> None:
            self._change(self.get(id), **changes)

        note(account=await forge.account(run.push))
        # What is gone is only removed, and there may be nobody left who would let us fetch it.
        remote = await forge.remote(run.push) if run.push.sha != GONE else NOWHERE
        return await self._executor.execute(self.get(id), remote, said, note, self._asking(forge, id))

    def _asking(self, forge: Forge, id: int) -> Callable[[], Any]:
        return lambda: self._overtaken(forge, self.get(id))

    async def _overtaken(self, forge: Forge, run: Run) -> str:
        return overtaken(run, await forge.head(run.push))

    async def _finish(self, run: Run, ended: Ended) -> None:
        """Its log and its end are stored, then told."""
        kept = self._logs.get(run.id) or self._logs.setdefault(run.id, self._log_of(run.id))
        if ended.state == QUEUED:
            kept.say("its process was killed")
            ended = Ended(*after_a_kill(run))
        open_again = ended.state == QUEUED
        said = "begins again" if open_again else ended.state
        kept.say(f"run {run.id} {said}" + (f": {ended.reason}" if ended.reason else ""))
        await kept.flush()
        changes = {
            "state": ended.state,
            "reason": ended.reason,
            "ended_at": "" if open_again else _now(),
            "attempt": run.attempt + open_again,
        }
        final = msgspec.structs.replace(self.get(run.id), change=run.change + 1, **changes)
        await self._store_now(final)
        self._runs[run.id] = final
        self.changed(final)
        self._tell()
        if not open_again:
            self._logs.pop(run.id, None)

    def _supersede_others(self, head: Run) -> None:
        for run in superseded_by(head, self._runs.values()):
            why = f"run {head.id} is newer" if head.id > run.id else f"run {head.id} is of the newer commit"
            self._change(run, state=SUPERSEDED, reason=why, ended_at=_now(), superseded_by=head.id)

    # Memory, store, followers

    def _change(self, run: Run, *, news: bool = True, **changes: Any) -> None:
        new = msgspec.structs.replace(run, **({"change": run.change + 1} | changes))
        self._runs[run.id] = self._unstored[run.id] = new
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="store runs")
        if news:
            self._tell()
            if new.state != run.state or new.functions != run.functions:
                self.changed(new)

    async def _write(self) -> None:
        while self._unstored:
            id, run = next(iter(self._unstored.items()))
            try:
                await self._store.put(run)
            except Unavailable as error:
                log.warning("run %s waits to be stored: %s", id, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._unstored.get(id) is run:
                del self._unstored[id]
        self._writing = None

    async def _store_now(self, run: Run) -> None:
        self._unstored[run.id] = run
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="store runs")
        await asyncio.shield(self._writing)

    def _tell(self) -> None:
        """Wake who follows: each waits for the event that stood here when it last looked."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _forget_old(self) -> None:
        """Only from memory's end: the store forgets by itself."""
        for id in sorted(self._runs)[:-_REMEMBERED]:
            if not self._runs[id].is_open:
                del self._runs[id]


def _now() -> str:
    return format_rfc3339(time.time_ns())
