"""GitLab's hook secret lies in many projects: who knows it has no other project's functions removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from broker import RunningBroker
from github_server import SECRET, ZEROS, Repository
from gitlab_server import GitLabServer

from stoker_builder.pipeline.execution import Ended, ExecutionSettings, Executor
from stoker_builder.pipeline.forge import Remote
from stoker_builder.pipeline.gitlab.connection import GitLabSettings
from stoker_builder.pipeline.gitlab.events import FORGE
from stoker_builder.pipeline.gitlab.forge import GitLabForge
from stoker_builder.pipeline.memory import Connected, ForgeMemory
from stoker_builder.pipeline.owners import Owners
from stoker_builder.pipeline.policy import Limits
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.runs import GONE, Run


class Carried(Executor):
    """In place of a process: what it is given succeeds, and is kept."""

    def __init__(self) -> None:
        super().__init__(ExecutionSettings(Path("/nowhere"), "", Path("/nowhere"), Path("/nowhere"), ""))
        self.out: list[Run] = []

    def prepare(self) -> None:
        pass

    async def execute(self, run: Run, remote: Remote, log: Any, note: Any, may_deploy: Any) -> Ended:
        self.out.append(run)
        return Ended("succeeded")


@dataclass
class Life:
    gitlab: GitLabServer
    forge: GitLabForge
    runs: Runs
    client: Any
    executor: Carried
    store: RunStore

    async def hook(self, project: Repository, **changes: Any) -> Run:
        """The run of a hook, when it has ended."""
        shown = {"id": changes.pop("id", project.id), "default_branch": changes.get("branch", "main")}
        shown["path_with_namespace"] = changes.pop("path", project.full_name)
        ref = f"refs/heads/{changes.pop('branch', 'main')}"
        hook = self.gitlab.hook(project, **{"project": shown, "ref": ref, **changes})
        headers = {"X-Gitlab-Token": SECRET, "X-Gitlab-Event": "Push Hook"}
        async with self.client.post("/gitlab/webhook", json=hook, headers=headers) as answer:
            id = int((await answer.text()).split()[1])
        async for item in self.runs.follow(id):
            if isinstance(item, Run) and not item.is_open:
                return item
        raise AssertionError("it never ended")

    async def known(self) -> list[Connected]:
        """The projects that the next life of the pipeline knows."""
        return await ForgeMemory(self.store, FORGE).repositories()

    @property
    def removed(self) -> list[str]:
        """Whose functions."""
        return [run.push.owner for run in self.executor.out if run.push.sha == GONE]


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLabServer]:
    server = GitLabServer(tmp_path / "gitlab")
    yield server
    server.close()


@asynccontextmanager
async def life(broker: RunningBroker, gitlab: GitLabServer) -> AsyncIterator[Life]:
    executor, store = Carried(), RunStore(broker.settings_file)
    settings = GitLabSettings(gitlab.url, str(gitlab.token_file), str(gitlab.secret_file))
    forge = GitLabForge(settings, store, executor, None, str, Owners(store))
    forge.runs = runs = Runs(store, {forge.name: forge}, executor, Limits(2, 1))
    await runs.start()
    app = web.Application()
    app.add_routes(forge.routes())
    client = TestClient(TestServer(app))
    await client.start_server()
    try:
        yield Life(gitlab, forge, runs, client, executor, store)
    finally:
        await client.close()
        await runs.close()


def pushed(gitlab: GitLabServer, full_name: str) -> Repository:
    project = gitlab.create(full_name)
    project.commit(a=full_name)
    project.upload()
    return project


async def test_a_project_removes_what_is_its_own_when_it_is_gone(broker: RunningBroker, gitlab: GitLabServer) -> None:
    app = pushed(gitlab, "victim/app")
    async with life(broker, gitlab) as it:
        assert (await it.hook(app)).state == "succeeded"
        early = await it.hook(app, after=ZEROS)
        assert (early.state, it.removed) == ("superseded", []), "it is still there"
        gitlab.delete(app)
        assert (await it.hook(app, after=ZEROS)).state == "succeeded"
        assert it.removed == ["victim"] and await it.known() == []


async def test_nobody_removes_what_another_project_deployed(broker: RunningBroker, gitlab: GitLabServer) -> None:
    app, mine = pushed(gitlab, "victim/app"), pushed(gitlab, "mallory/mine")
    async with life(broker, gitlab) as it:
        assert (await it.hook(app)).state == (await it.hook(mine)).state == "succeeded"
        known = await it.known()
        for id in (mine.id, 999_999):
            await it.hook(app, id=id)  # says that this number were the victim's
            run = await it.hook(app, id=id, after=ZEROS)
            assert (run.state, run.reason[:23]) == ("failed", "victim/app is not known")
        await it.hook(app, branch="other")
        run = await it.hook(app, branch="other", after=ZEROS)  # which is not the default branch, as GitLab says
        assert run.state == "failed"
        assert it.removed == [] and {each.id: each.names for each in await it.known()} == {
            each.id: each.names for each in known
        }


async def test_a_push_that_no_hook_told_is_found_once(broker: RunningBroker, gitlab: GitLabServer) -> None:
    app = pushed(gitlab, "victim/app")
    async with life(broker, gitlab) as it:
        await it.hook(app)
        app.commit(a="later")
        app.upload()
        for _ in range(3):
            await it.forge.look()
        assert len(it.runs.all()) == 2
        await it.hook(app)
        assert len(it.runs.all()) == 2
