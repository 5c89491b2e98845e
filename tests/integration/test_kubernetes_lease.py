"""Who leads, whatever happens to the one that does: before a server in memory, and before a real cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import pytest
from api_relay import ApiRelay
from lease_server import LeaseServer
from running_cluster import Cluster

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.lease import DEFAULTS, Candidate, Times

QUICK = Times(duration=2, held=1.2, every=0.2, patience=0.5)
NAMESPACE, NAME = "stoker-lease", "leader"
PATH = f"apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"


class World(Protocol):
    """A cluster's API, which each client reaches by a way of its own."""

    async def kubeconfig(self, name: str) -> Path: ...
    async def cut(self, name: str) -> None: ...
    async def mend(self, name: str) -> None: ...

    async def lease(self) -> dict[str, Any]: ...
    async def put(self, spec: dict[str, Any]) -> None:
        """Let there be a Lease with this content, whoever holds it."""

    async def annotate(self) -> None: ...
    async def remove(self) -> None: ...


class MemoryWorld:
    def __init__(self, folder: Path) -> None:
        self.server = LeaseServer()
        self._folder = folder

    async def kubeconfig(self, name: str) -> Path:
        return self.server.door(name, self._folder)

    async def cut(self, name: str) -> None:
        self.server.shut(name)

    async def mend(self, name: str) -> None:
        self.server.open(name)

    async def lease(self) -> dict[str, Any]:
        return self.server.leases[PATH]

    async def put(self, spec: dict[str, Any]) -> None:
        self.server.leases[PATH] = {"metadata": {"name": NAME, "resourceVersion": "by-hand"}, "spec": spec}

    async def annotate(self) -> None:
        await self.put(self.server.leases[PATH]["spec"])

    async def remove(self) -> None:
        del self.server.leases[PATH]


class ClusterWorld:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._relays: dict[str, ApiRelay] = {}

    async def kubeconfig(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        self._relays[name] = ApiRelay(self._cluster.kubeconfig, folder)
        return self._relays[name].kubeconfig

    async def cut(self, name: str) -> None:
        self._relays[name].cut()

    async def mend(self, name: str) -> None:
        self._relays[name].mend()

    async def lease(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._kubectl("get", "lease", NAME, "-o", "json"))
        return found

    async def put(self, spec: dict[str, Any]) -> None:
        document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": spec}
        await self._kubectl("apply", "-f", "-", input=json.dumps(document))

    async def annotate(self) -> None:
        await self._kubectl("annotate", "lease", NAME, f"touched={monotonic()}", "--overwrite")

    async def remove(self) -> None:
        await self._kubectl("delete", "lease", NAME, "--ignore-not-found")

    async def _kubectl(self, *arguments: str, input: str | None = None) -> str:
        return await asyncio.to_thread(self._cluster.kubectl, "-n", NAMESPACE, *arguments, input=input)

    def close(self) -> None:
        for relay in self._relays.values():
            relay.cut()


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[None]:
    cluster.ensure_namespace(NAMESPACE)
    yield
    cluster.kubectl("delete", "namespace", NAMESPACE)


@asynccontextmanager
async def in_memory(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[World]:
    world = MemoryWorld(folder)
    await world.server.start()
    try:
        yield world
    finally:
        await world.server.stop()


@asynccontextmanager
async def in_cluster(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[World]:
    cluster: Cluster = request.getfixturevalue("cluster")
    request.getfixturevalue("namespace")
    world = ClusterWorld(cluster, folder)
    try:
        yield world
    finally:
        world.close()
        await asyncio.to_thread(cluster.kubectl, "delete", "lease", "--all", "-n", NAMESPACE)


@pytest.fixture(params=[in_memory, pytest.param(in_cluster, marks=pytest.mark.cluster)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with request.param(request, tmp_path) as made:
        yield made


class Platform:
    """A candidate at work. `spans` are the times in which it led, by its own word."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.spans: list[list[float]] = []
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(candidate.run()), loop.create_task(candidate.lead(self._work))]

    async def _work(self) -> None:
        self.spans.append([monotonic(), 0.0])
        try:
            await asyncio.Event().wait()
        finally:
            self.spans[-1][1] = monotonic()

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stop(self) -> None:
        await self.kill()
        await self.candidate.release()

    @property
    def leads(self) -> bool:
        return bool(self.spans) and not self.spans[-1][1]


Make = Callable[[str], Any]


@pytest.fixture
async def make(world: World) -> AsyncIterator[Make]:
    """Starts platforms: `await make("a")`."""
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Platform:
            api = await open_api(await world.kubeconfig(name))
            stack.push_async_callback(api.close)
            platform = Platform(Candidate(api, NAMESPACE, NAME, name, QUICK))
            stack.push_async_callback(platform.kill)
            return platform

        yield start


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_first_leads_and_the_others_wait(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    others = [await make("b"), await make("c")]
    await asyncio.sleep(QUICK.duration * 2)
    assert first.candidate.is_leader and len(first.spans) == 1
    assert not any(other.spans or other.candidate.is_leader for other in others)
    spec = (await world.lease())["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", QUICK.duration)


async def test_of_many_that_start_at_once_one_leads(make: Make) -> None:
    platforms = [await make(name) for name in "abcde"]
    await until(lambda: any(one.leads for one in platforms))
    await asyncio.sleep(QUICK.duration)
    assert sum(len(one.spans) for one in platforms) == 1


async def test_who_stops_in_order_is_followed_at_once(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    second = await make("b")
    await asyncio.sleep(QUICK.every * 2)
    await first.stop()
    stopped = monotonic()
    await until(lambda: bool(second.leads))
    assert monotonic() - stopped < QUICK.duration / 2
    assert (await world.lease())["spec"]["leaseTransitions"] == 1


async def test_who_is_killed_is_followed_when_his_time_is_up_and_not_before(make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    second = await make("b")
    await asyncio.sleep(QUICK.every * 2)
    await first.kill()
    killed = monotonic()
    await until(lambda: bool(second.leads))
    assert QUICK.duration - QUICK.every < second.spans[0][0] - killed < QUICK.duration + QUICK.every * 3


async def test_who_cannot_renew_has_ended_before_another_begins(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    second = await make("b")
    await asyncio.sleep(QUICK.every * 2)
    await world.cut("a")
    await until(lambda: bool(second.leads))
    assert first.spans[0][1] and first.spans[0][1] < second.spans[0][0]
    assert not first.candidate.is_leader
    await world.mend("a")
    await asyncio.sleep(QUICK.duration)
    assert len(first.spans) == 1 and second.leads


async def test_a_short_silence_of_the_api_changes_nothing(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    await world.cut("a")
    await asyncio.sleep(QUICK.held / 3)
    await world.mend("a")
    await asyncio.sleep(QUICK.held * 2)
    assert first.leads and len(first.spans) == 1


@pytest.mark.parametrize("year", ["1999", "2199"])
async def test_the_clocks_of_other_machines_do_not_count(world: World, make: Make, year: str) -> None:
    time = f"{year}-01-01T00:00:00.000000Z"
    await world.put(
        {"holderIdentity": "x", "leaseDurationSeconds": QUICK.duration, "renewTime": time, "acquireTime": time}
    )
    begun = monotonic()
    first = await make("a")
    await until(lambda: first.leads)
    assert QUICK.duration <= monotonic() - begun < QUICK.duration + QUICK.every * 4


async def test_somebody_who_edits_the_object_deposes_nobody(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    await world.annotate()
    await asyncio.sleep(QUICK.held * 2)
    assert first.leads and len(first.spans) == 1


async def test_a_lease_that_is_removed_is_made_anew(world: World, make: Make) -> None:
    first = await make("a")
    await until(lambda: first.leads)
    await world.remove()
    await asyncio.sleep(QUICK.held * 2)
    assert first.leads
    assert (await world.lease())["spec"]["holderIdentity"] == "a"


async def test_a_write_whose_answer_is_lost_counts_all_the_same(tmp_path: Path) -> None:
    async with in_memory(None, tmp_path) as world:  # type: ignore[arg-type]
        assert isinstance(world, MemoryWorld)
        world.server.lose_answers = 2
        api = await open_api(await world.kubeconfig("a"))
        platform = Platform(Candidate(api, NAMESPACE, NAME, "a", QUICK))
        await until(lambda: platform.leads)
        assert world.server.writes == 3
        world.server.lose_answers = 1
        await asyncio.sleep(QUICK.held * 2)
        assert len(platform.spans) == 1
        await platform.kill()
        await api.close()


def test_a_leader_moves_within_twenty_seconds_and_leads_for_less_than_others_wait() -> None:
    assert DEFAULTS.held < DEFAULTS.duration
    assert DEFAULTS.duration + DEFAULTS.every + 2 * DEFAULTS.patience <= 20
