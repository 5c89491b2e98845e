"""Runs and what forges hear of them, with a real broker: stored before they are told, told again until it is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from broker import RunningBroker

from stoker_builder.pipeline.execution import Ended, ExecutionSettings, Executor
from stoker_builder.pipeline.forge import Remote
from stoker_builder.pipeline.policy import Limits
from stoker_builder.pipeline.reporter import Reporter
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.errors import StokerError
from stoker_sdk.runs import Push, Run, RunLine

A, B = "a" * 40, "b" * 40


class HeardForge:
    """Keeps what it hears; hears nothing while it is `deaf`."""

    name = "heard"
    reports = True
    is_busy = False

    def __init__(self) -> None:
        self.heard: list[tuple[int, str]] = []
        self.deaf = False
        self.at = A

    def routes(self) -> Sequence[web.RouteDef]:
        return ()

    async def head(self, push: Push) -> str:
        return self.at

    async def remote(self, push: Push) -> Remote:
        return Remote("https://example.org/x", "https")

    async def account(self, push: Push) -> str:
        return "heard 7"

    async def report(self, run: Run) -> None:
        if self.deaf:
            raise StokerError("the forge is down")
        self.heard.append((run.id, run.state))

    async def look(self) -> None:
        pass


class Instead(Executor):
    """In place of a process: says a line, and ends as it is told, when it is told."""

    def __init__(self) -> None:
        super().__init__(ExecutionSettings(Path("/nowhere"), "", Path("/nowhere"), Path("/nowhere"), ""))
        self.go = asyncio.Event()
        self.ended = Ended("succeeded")

    async def execute(self, run: Run, remote: Remote, log: Any, note: Any, may_deploy: Any) -> Ended:
        log.say("working")
        await self.go.wait()
        stop = await may_deploy()
        return Ended("superseded", stop) if stop else self.ended


@asynccontextmanager
async def life(broker: RunningBroker, forge: HeardForge, executor: Executor) -> Any:
    """One life of the pipeline, without its process."""
    runs = Runs(RunStore(broker.settings_file), {forge.name: forge}, executor, Limits(2, 1))
    reporter = Reporter(runs, {forge.name: forge}, first_pause=0.01)
    await runs.start()
    reporter.take_up()
    try:
        yield runs
    finally:
        await reporter.close()
        await runs.close()


def push(sha: str = A, repository: str = "web") -> Push:
    return Push("heard", "me", repository, "main", sha)


async def until_closed(runs: Runs, id: int) -> Run:
    async for item in runs.follow(id):
        if isinstance(item, Run) and not item.is_open:
            return item
    raise AssertionError("it never ended")


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_forge_hears_each_state_in_order_and_the_last_one_last(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    async with life(broker, forge, executor) as runs:
        run = await runs.accept(push())
        await until(lambda: (run.id, "running") in forge.heard)
        executor.go.set()
        assert (await until_closed(runs, run.id)).state == "succeeded"
        await until(lambda: forge.heard[-1] == (run.id, "succeeded"))
        assert [line.text for line in await runs.lines(run.id)][-2:] == ["working", f"run {run.id} succeeded"]


async def test_what_a_deaf_forge_did_not_hear_it_hears_after_a_restart_once(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    forge.deaf = True
    executor.go.set()
    async with life(broker, forge, executor) as runs:
        run = await runs.accept(push())
        await until_closed(runs, run.id)
    assert forge.heard == []
    forge.deaf = False
    async with life(broker, forge, executor) as runs:
        await until(lambda: forge.heard)
        await until(lambda: runs.get(run.id).reported == runs.get(run.id).change)
    assert forge.heard == [(run.id, "succeeded")]
    async with life(broker, forge, executor) as runs:
        await asyncio.sleep(0.2)
        assert (await runs.lines(run.id))[0].text.startswith(f"run {run.id}: me/web main aaaaaaa")
    assert forge.heard == [(run.id, "succeeded")]


async def test_the_same_push_is_one_run_however_often_it_comes(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    async with life(broker, forge, executor) as runs:
        found = await asyncio.gather(*(runs.accept(push()) for _ in range(20)))
        assert len({run.id for run in found}) == 1
        executor.go.set()
        await until_closed(runs, found[0].id)
        assert (await runs.accept(push())).id == found[0].id


async def test_a_commit_that_the_branch_has_left_never_goes_live(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    async with life(broker, forge, executor) as runs:
        first = await runs.accept(push())
        await until(lambda: runs.get(first.id).state == "running")
        forge.at = B
        second = await runs.accept(push(B))
        late = await runs.accept(push(A))  # its message came late, or again
        executor.go.set()
        assert (await until_closed(runs, first.id)).state == "superseded"
        assert (await until_closed(runs, late.id)).state == "superseded"
        assert (await until_closed(runs, second.id)).state == "succeeded"


async def test_what_was_going_when_it_was_killed_goes_again_and_what_waited_waits(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    never = Instead()
    killed = Runs(RunStore(broker.settings_file), {forge.name: forge}, never, Limits(1, 1))
    await killed.start()
    first, second = await killed.accept(push()), await killed.accept(push(repository="api"))
    await until(lambda: killed.get(first.id).state == "running")
    await until(lambda: not killed._unstored)
    executor.go.set()
    async with life(broker, forge, executor) as runs:  # the other one never comes to its end
        ended = [await until_closed(runs, run.id) for run in (first, second)]
    assert [(run.state, run.attempt) for run in ended] == [("succeeded", 2), ("succeeded", 1)]
    await killed.close()


async def test_ids_are_never_given_twice(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    executor.go.set()
    async with life(broker, forge, executor) as runs:
        ids = [(await runs.accept(push(repository=f"r{n}"))).id for n in range(3)]
    async with life(broker, forge, executor) as runs:
        ids.append((await runs.accept(push(repository="r9"))).id)
    assert ids == sorted(set(ids))


async def test_a_log_is_followed_from_its_beginning_by_many(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    async with life(broker, forge, executor) as runs:
        run = await runs.accept(push())

        async def texts() -> list[str]:
            return [item.text async for item in runs.follow(run.id) if isinstance(item, RunLine)]

        followers = [asyncio.create_task(texts()) for _ in range(5)]
        await until(lambda: runs.get(run.id).state == "running")
        executor.go.set()
        seen = await asyncio.gather(*followers, texts())
        assert all(each == seen[0] for each in seen)
        assert seen[0] == [f"run {run.id}: me/web main aaaaaaa", "working", f"run {run.id} succeeded"]


async def test_a_run_whose_process_dies_each_time_is_given_up(broker: RunningBroker) -> None:
    forge, executor = HeardForge(), Instead()
    executor.ended = Ended("queued")
    executor.go.set()
    async with life(broker, forge, executor) as runs:
        run = await until_closed(runs, (await runs.accept(push())).id)
        assert (run.state, run.attempt) == ("failed", 3)
