"""What every provider must do, whatever it runs functions on.

Each provider brings a harness: how to make it, what a function looks like for it, and how to let one print or
fail. The conditions are waited for, because a real provider needs time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from docker_harness import docker_harness
from function_crd import function_crd
from kubernetes_harness import GROUP, kubernetes_harness, operator_harness
from local_harness import local_harness
from running_cluster import Cluster

from stoker_gateway.providers.base import LogLine, LogQuery, Provider
from stoker_gateway.providers.memory import MemoryProvider
from stoker_gateway.routes import Route
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.function import Condition, FunctionSpec, Resources
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import parse_rfc3339

GREET = FunctionKey("openfaas-fn", "greet")
NOBODY = FunctionKey("openfaas-fn", "nobody")
HASTY = {"com.openfaas.ready.http.periodSeconds": "1", "com.openfaas.ready.http.failureThreshold": "1"}
LIMIT = 60.0
"""Seconds that a real provider may take for anything here; a cluster starts a crashed container again after ten."""


class Harness(Protocol):
    """One provider under test, and what the tests need to know of its world."""

    provider: Provider

    def spec(self, name: str = "greet", **fields: Any) -> FunctionSpec:
        """A function that gets ready; `fields` as in `FunctionSpec`, with `namespace` filled."""

    def broken_spec(self, name: str = "greet") -> FunctionSpec:
        """A function whose replicas never get ready."""

    async def print(self, key: FunctionKey, text: str) -> None:
        """Let a ready replica print the line. Returns when it did, not when the provider has read it."""

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        """Let a replica be unhealthy for this reason, or healthy again; the provider is to notice it within seconds."""


class MemoryHarness:
    def __init__(self) -> None:
        self.memory = MemoryProvider()
        self.provider: Provider = self.memory
        self.memory.break_image("broken", "ImportError: broken on purpose")

    def spec(self, name: str = "greet", **fields: Any) -> FunctionSpec:
        return FunctionSpec(**({"service": name, "image": "example/fine:1", "namespace": "openfaas-fn"} | fields))

    def broken_spec(self, name: str = "greet") -> FunctionSpec:
        return self.spec(name, image="broken")

    async def print(self, key: FunctionKey, text: str) -> None:
        await self.memory.print(key, text)

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        await self.memory.set_health(key, instance, reason)


@asynccontextmanager
async def memory_harness(folder: Path) -> AsyncIterator[Harness]:
    yield MemoryHarness()


Factory = Callable[[Any], AbstractAsyncContextManager[Harness]]

CLUSTER = [pytest.mark.cluster, pytest.mark.timeout(300)]
FACTORIES = [
    pytest.param(memory_harness, "tmp_path", id="memory"),
    pytest.param(local_harness, "tmp_path", id="local"),
    pytest.param(docker_harness, "cluster", id="docker", marks=CLUSTER),
    pytest.param(kubernetes_harness, "cluster", id="kubernetes", marks=CLUSTER),
    pytest.param(operator_harness, "cluster_with_functions", id="operator", marks=CLUSTER),
]
"""Add a provider here; its factory gets what the fixture of that name gives."""


class Routes:
    """The listener: the last route of each function, and all that came before."""

    def __init__(self) -> None:
        self.current: dict[FunctionKey, Route | None] = {}
        self.history: list[Route | None] = []
        self._changed = asyncio.Condition()

    async def listen(self, key: FunctionKey, route: Route | None) -> None:
        async with self._changed:
            self.current[key] = route
            self.history.append(route)
            self._changed.notify_all()

    def targets(self, key: FunctionKey = GREET) -> set[str]:
        route = self.current.get(key)
        return {target.id for target in route.targets} if route else set()

    async def until_count(self, count: int) -> None:
        await self.until(lambda: len(self.targets()) == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT), self._changed:
            await self._changed.wait_for(condition)


@pytest.fixture(scope="session")
def cluster_with_functions(cluster: Cluster) -> Iterator[Cluster]:
    with function_crd(cluster, GROUP):
        yield cluster


@pytest.fixture
async def harness(factory: Factory, world: str, request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with factory(request.getfixturevalue(world)) as made:
        yield made


pytestmark = pytest.mark.parametrize(("factory", "world"), FACTORIES)


@pytest.fixture
async def routes(harness: Harness) -> AsyncIterator[Routes]:
    listener = Routes()
    await harness.provider.start(listener.listen)
    yield listener
    await harness.provider.close()


def condition(harness: Harness, key: FunctionKey = GREET) -> Condition:
    found = harness.provider.get(key).stoker
    assert found is not None
    return found


async def until_state(harness: Harness, state: str, revision: int = 1, key: FunctionKey = GREET) -> Condition:
    async with asyncio.timeout(LIMIT):
        while condition(harness, key).state != state or condition(harness, key).revision < revision:
            await asyncio.sleep(0.02)
    return condition(harness, key)


async def until_serving(harness: Harness, revision: int) -> None:
    """The route is told before the revision counts as proven."""
    async with asyncio.timeout(LIMIT):
        while condition(harness).serving != revision:
            await asyncio.sleep(0.02)


async def until_message(harness: Harness, words: str) -> Condition:
    """A reason may come later than the state that it explains, because the replica is asked for it."""
    async with asyncio.timeout(LIMIT):
        while not any(words in one.message for one in condition(harness).instances):
            await asyncio.sleep(0.02)
    return condition(harness)


async def deploy_ready(harness: Harness, routes: Routes, **fields: Any) -> int:
    revision = await harness.provider.deploy(harness.spec(**fields), create=True)
    await until_state(harness, "ready", revision)
    await routes.until(lambda: bool(routes.targets()))
    return revision


async def test_a_new_function_gets_ready_and_its_route_is_told(harness: Harness, routes: Routes) -> None:
    annotations = {"stoker.dev/timeout": "90s", "stoker.dev/concurrency": "7"}
    revision = await deploy_ready(harness, routes, annotations=annotations)
    assert revision >= 1
    route = routes.current[GREET]
    assert route is not None
    assert (route.key, route.timeout, route.concurrency) == ("greet.openfaas-fn", 90.0, 7)
    assert all(target.address.startswith(("unix:/", "tcp:")) for target in route.targets)
    status = harness.provider.get(GREET)
    assert (status.replicas, status.available_replicas) == (1, 1)
    assert condition(harness).serving == revision


async def test_the_status_says_verbatim_what_was_asked_for(harness: Harness, routes: Routes) -> None:
    spec = harness.spec(
        env_vars={"A": " b "},
        labels={"team": "x", "com.openfaas.scale.min": "1"},
        annotations={"note": "any\ntext"},
        constraints=["zone=a"],
        limits=Resources(memory="0256Mi"),
    )
    await harness.provider.deploy(spec, create=True)
    status = harness.provider.get(GREET)
    for field in ("image", "namespace", "env_process", "env_vars", "constraints", "secrets", "labels"):
        assert getattr(status, field) == getattr(spec, field), field
    for field in ("annotations", "limits", "requests", "read_only_root_filesystem"):
        assert getattr(status, field) == getattr(spec, field), field
    assert parse_rfc3339(status.created_at).year > 2000


async def test_the_minimum_of_replicas_starts(harness: Harness, routes: Routes) -> None:
    await harness.provider.deploy(harness.spec(labels={"com.openfaas.scale.min": "2"}), create=True)
    await routes.until(lambda: len(routes.targets()) == 2)


async def test_creating_what_exists_and_updating_what_does_not_is_refused(harness: Harness, routes: Routes) -> None:
    with pytest.raises(NotFound):
        await harness.provider.deploy(harness.spec(), create=False)
    await harness.provider.deploy(harness.spec(), create=True)
    with pytest.raises(Conflict):
        await harness.provider.deploy(harness.spec(), create=True)


async def test_an_unchanged_spec_keeps_revision_and_replicas(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    before = routes.targets()
    assert await harness.provider.deploy(harness.spec(), create=False) == revision
    await until_state(harness, "ready", revision)
    assert routes.targets() == before


async def test_an_update_replaces_the_replicas_and_never_leaves_the_route_empty(
    harness: Harness, routes: Routes
) -> None:
    revision = await deploy_ready(harness, routes)
    before, told = routes.targets(), len(routes.history)
    updated = await harness.provider.deploy(harness.spec(env_vars={"A": "2"}), create=False)
    assert updated > revision
    await until_state(harness, "ready", updated)
    await routes.until(lambda: bool(routes.targets()) and not routes.targets() & before)
    await until_serving(harness, updated)
    assert all(route is not None and route.targets for route in routes.history[told:])


async def test_a_function_that_cannot_start_is_failed_with_a_reason_and_its_route_says_so(
    harness: Harness, routes: Routes
) -> None:
    revision = await harness.provider.deploy(harness.broken_spec(), create=True)
    failed = await until_state(harness, "failed", revision)
    assert failed.message and failed.serving == 0

    def is_told() -> bool:
        route = routes.current.get(GREET)
        return route is not None and bool(route.failure) and not route.targets

    await routes.until(is_told)


async def test_a_failed_update_leaves_the_old_replicas_serving(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    before = routes.targets()
    failed_revision = await harness.provider.deploy(harness.broken_spec(), create=False)
    failed = await until_state(harness, "failed", failed_revision)
    assert failed.message and failed.serving == revision
    assert routes.targets() == before
    route = routes.current[GREET]
    assert route is not None and not route.failure


async def test_a_good_update_mends_a_failed_one(harness: Harness, routes: Routes) -> None:
    failed = await harness.provider.deploy(harness.broken_spec(), create=True)
    await until_state(harness, "failed", failed)
    mended = await harness.provider.deploy(harness.spec(), create=False)
    assert (await until_state(harness, "ready", mended)).message == ""
    await routes.until(lambda: bool(routes.targets()))


async def test_every_deploy_is_kept_as_a_revision(harness: Harness, routes: Routes) -> None:
    first = await deploy_ready(harness, routes)
    await harness.provider.deploy(harness.spec(), create=False)
    second = await harness.provider.deploy(harness.spec(env_vars={"A": "2"}), create=False)
    third = await harness.provider.deploy(harness.spec(env_vars={"A": "3"}, labels={"b": "c"}), create=False)
    kept = harness.provider.revisions(GREET)
    assert [one.number for one in kept] == [first, second, third]
    assert [one.changed for one in kept] == [[], ["envVars.A"], ["envVars.A", "labels.b"]]
    assert [one.spec.env_vars for one in kept] == [None, {"A": "2"}, {"A": "3"}]
    assert all(parse_rfc3339(one.created_at).year > 2000 and not one.failed for one in kept)


async def test_a_rollback_puts_an_earlier_revision_live_as_a_new_one(harness: Harness, routes: Routes) -> None:
    first = await deploy_ready(harness, routes, env_vars={"A": "1"}, limits=Resources(memory="100Mi"))
    second = await harness.provider.deploy(harness.spec(env_vars={"A": "2"}), create=False)
    await until_state(harness, "ready", second)
    await until_serving(harness, second)
    await harness.provider.scale(GREET, 2)
    await routes.until_count(2)
    before, told = routes.targets(), len(routes.history)
    third = await harness.provider.rollback(GREET, first)
    assert third > second
    await until_state(harness, "ready", third)
    await routes.until(lambda: len(routes.targets()) == 2 and not routes.targets() & before)
    await until_serving(harness, third)
    assert all(route is not None and route.targets for route in routes.history[told:])
    status = harness.provider.get(GREET)
    assert (status.env_vars, status.limits, status.replicas) == ({"A": "1"}, Resources(memory="100Mi"), 2)
    kept = harness.provider.revisions(GREET)
    assert [(one.number, one.rollback_to) for one in kept] == [(first, 0), (second, 0), (third, first)]
    assert kept[-1].changed == ["envVars.A", "limits.memory"]
    assert (kept[-1].spec, kept[-1].image) == (kept[0].spec, kept[0].image)


async def test_a_rollback_to_what_is_asked_for_already_changes_nothing(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    before = routes.targets()
    assert await harness.provider.rollback(GREET, revision) == revision
    await until_state(harness, "ready", revision)
    assert routes.targets() == before
    assert len(harness.provider.revisions(GREET)) == 1


async def test_a_rollback_mends_a_failed_update(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    broken = await harness.provider.deploy(harness.broken_spec(), create=False)
    await until_state(harness, "failed", broken)
    mended = await harness.provider.rollback(GREET, revision)
    assert (await until_state(harness, "ready", mended)).message == ""
    assert [one.failed for one in harness.provider.revisions(GREET)] == [False, True, False]


async def test_a_rollback_to_what_cannot_start_leaves_the_live_one_serving(harness: Harness, routes: Routes) -> None:
    broken = await harness.provider.deploy(harness.broken_spec(), create=True)
    await until_state(harness, "failed", broken)
    live = await harness.provider.deploy(harness.spec(), create=False)
    await until_state(harness, "ready", live)
    await until_serving(harness, live)
    await routes.until_count(1)
    before = routes.targets()
    again = await harness.provider.rollback(GREET, broken)
    assert (await until_state(harness, "failed", again)).serving == live
    assert routes.targets() == before


async def test_a_revision_that_is_not_there_is_named_with_those_that_are(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    with pytest.raises(NotFound, match=f"'greet' has no revision 77 .*there are {revision}$"):
        await harness.provider.rollback(GREET, 77)
    assert [one.number for one in harness.provider.revisions(GREET)] == [revision]


async def test_old_revisions_give_way(harness: Harness, routes: Routes) -> None:
    few = {"stoker.dev/revisions": "3"}
    await harness.provider.deploy(harness.spec(annotations=few), create=True)
    for number in range(4):
        last = await harness.provider.deploy(harness.spec(annotations=few, labels={"n": f"{number}"}), create=False)
    kept = [one.number for one in harness.provider.revisions(GREET)]
    assert len(kept) == 3 and kept[-2:] == [last - 1, last]  # with them the newest other one, or the one that serves


async def test_a_removed_function_takes_its_history_with_it(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    await harness.provider.deploy(harness.spec(env_vars={"A": "2"}), create=False)
    await harness.provider.remove(GREET)
    with pytest.raises(NotFound, match="greet"):
        harness.provider.revisions(GREET)
    await deploy_ready(harness, routes)
    assert [one.changed for one in harness.provider.revisions(GREET)] == [[]]


async def test_scaling_up_down_and_to_zero_is_followed_by_the_route(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    for count in (3, 1, 0):
        await harness.provider.scale(GREET, count)
        await routes.until_count(count)
        assert harness.provider.get(GREET).replicas == count
    assert (await until_state(harness, "zero")).message == ""


async def test_a_wake_starts_a_function_at_zero_and_changes_nothing_else(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    before = routes.targets()
    await harness.provider.wake(GREET)
    assert routes.targets() == before
    await harness.provider.scale(GREET, 0)
    await routes.until(lambda: not routes.targets())
    await asyncio.gather(*(harness.provider.wake(GREET) for _ in range(5)))
    await routes.until(lambda: bool(routes.targets()))
    assert len(routes.targets()) == 1
    await until_state(harness, "ready")
    await harness.provider.wake(NOBODY)


async def test_scaling_refuses_what_makes_no_sense(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    for count in (-1, 10**9):
        with pytest.raises(BadInput):
            await harness.provider.scale(GREET, count)
    assert len(routes.targets()) == 1


async def test_a_restart_replaces_the_replicas_of_the_same_revision(harness: Harness, routes: Routes) -> None:
    revision = await deploy_ready(harness, routes)
    before = routes.targets()
    await harness.provider.restart(GREET)
    await routes.until(lambda: bool(routes.targets()) and not routes.targets() & before)
    assert condition(harness).serving == revision


async def test_an_unhealthy_replica_leaves_the_route_and_comes_back(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes, annotations=HASTY)
    await harness.provider.scale(GREET, 2)
    await routes.until_count(2)
    sick, fine = sorted(routes.targets())
    await harness.set_health(GREET, sick, "no database")
    await routes.until(lambda: routes.targets() == {fine})
    assert "1 of 2 replicas unhealthy" in (await until_state(harness, "unhealthy")).message
    assert harness.provider.get(GREET).available_replicas == 1
    told = await until_message(harness, "no database")
    shown = {one.id: (one.state, "no database" in one.message) for one in told.instances}
    assert shown == {sick: ("unhealthy", True), fine: ("ready", False)}
    await harness.set_health(GREET, sick, "")
    await routes.until(lambda: routes.targets() == {sick, fine})
    assert (await until_state(harness, "ready")).message == ""


async def test_a_removed_function_is_gone_and_may_come_again(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    await harness.provider.remove(GREET)
    await routes.until(lambda: GREET in routes.current and routes.current[GREET] is None)
    assert harness.provider.list("openfaas-fn") == []
    with pytest.raises(NotFound):
        harness.provider.get(GREET)
    await deploy_ready(harness, routes)


async def test_what_is_missing_is_not_found_by_name(harness: Harness, routes: Routes) -> None:
    provider = harness.provider
    for attempt in (provider.remove(NOBODY), provider.scale(NOBODY, 1), provider.restart(NOBODY)):
        with pytest.raises(NotFound, match="nobody"):
            await attempt
    with pytest.raises(NotFound, match="nobody"):
        await provider.rollback(NOBODY, 1)
    for look in (provider.get, provider.revisions):
        with pytest.raises(NotFound, match="nobody"):
            look(NOBODY)
    for follow in (False, True):
        with pytest.raises(NotFound, match="nobody"):
            await anext(provider.logs(NOBODY, LogQuery(follow=follow)))


async def test_the_list_is_in_order_and_of_one_namespace(harness: Harness, routes: Routes) -> None:
    for name in ("b", "a", "c"):
        await harness.provider.deploy(harness.spec(name), create=True)
    assert [status.name for status in harness.provider.list("openfaas-fn")] == ["a", "b", "c"]
    assert harness.provider.list("elsewhere") == []


async def test_printed_lines_are_in_the_log_oldest_first(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    for text in ("one", "two", "three"):
        await harness.print(GREET, text)
    lines = await until_logged(harness, "three")
    texts = [line.text.rstrip("\n") for line in lines]
    assert [text for text in texts if text in ("one", "two", "three")] == ["one", "two", "three"]
    for line in lines:
        assert (line.name, line.namespace) == ("greet", "openfaas-fn")
        assert line.instance
        assert parse_rfc3339(line.timestamp)


async def test_the_log_is_cut_by_tail_since_and_instance(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    for text in ("one", "two"):
        await harness.print(GREET, text)
    lines = await until_logged(harness, "two")
    assert await read(harness, LogQuery(tail=1)) == lines[-1:]
    assert await read(harness, LogQuery(tail=0)) == []
    assert await read(harness, LogQuery(tail=10_000)) == lines
    assert await read(harness, LogQuery(instance=lines[-1].instance))
    assert await read(harness, LogQuery(instance="nobody-1")) == []
    assert await read(harness, LogQuery(since=parse_rfc3339("2000-01-01T00:00:00Z"))) == lines
    assert await read(harness, LogQuery(since=parse_rfc3339("2999-01-01T00:00:00Z"))) == []


async def test_a_follower_gets_new_lines_and_may_leave_at_any_time(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    lines = harness.provider.logs(GREET, LogQuery(follow=True))
    for text in ("old", "new", "newer"):
        await harness.print(GREET, text)
        await follow_until(lines, text)
    waiting = asyncio.ensure_future(follow_until(lines, "never printed"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_follower_is_let_go_when_the_function_is_removed(harness: Harness, routes: Routes) -> None:
    await deploy_ready(harness, routes)
    lines = harness.provider.logs(GREET, LogQuery(follow=True))
    await harness.print(GREET, "old")
    await follow_until(lines, "old")
    await harness.provider.remove(GREET)
    async with asyncio.timeout(LIMIT):
        async for _ in lines:
            pass


async def test_errors_are_ours_and_say_what_to_do(harness: Harness, routes: Routes) -> None:
    with pytest.raises(StokerError) as caught:
        await harness.provider.deploy(harness.spec(), create=False)
    assert "'greet'" in str(caught.value)


async def read(harness: Harness, query: LogQuery) -> list[LogLine]:
    lines: Any = harness.provider.logs(GREET, query)
    async with aclosing(lines):
        return [line async for line in lines]


async def follow_until(lines: AsyncIterator[LogLine], text: str) -> None:
    async with asyncio.timeout(LIMIT):
        while (await anext(lines)).text.rstrip("\n") != text:
            pass


async def until_logged(harness: Harness, text: str) -> list[LogLine]:
    async with asyncio.timeout(LIMIT):
        while True:
            lines = await read(harness, LogQuery())
            if any(line.text.rstrip("\n") == text for line in lines):
                return lines
            await asyncio.sleep(0.02)
