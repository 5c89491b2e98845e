"""Real platforms for the tests that want one; see `running_platform` for how to use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import running_cluster
from running_cluster import Cluster
from running_platform import Platform

if TYPE_CHECKING:
    from broker import RunningBroker
    from installed_chart import Installed
    from object_server import ObjectServer
    from postgres import Postgres


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A running platform with two proxies, shared by all: use names of your own, and kill nothing but replicas."""
    shared = Platform(proxies=2)
    try:
        yield shared.start()
    finally:
        _end(shared)


@pytest.fixture
def make_platform(platform: Platform) -> Iterator[Callable[..., Platform]]:
    """Starts platforms for one test, which may do with them what it likes: `make_platform(proxies=2)`."""
    made: list[Platform] = []

    def make(**settings: Any) -> Platform:
        made.append(Platform(like=platform, **settings))
        return made[-1].start()

    yield make
    for one in made:
        _end(one)


@pytest.fixture
def own_platform(make_platform: Callable[..., Platform]) -> Platform:
    """A running platform for one test."""
    return make_platform()


@pytest.fixture
async def store() -> AsyncIterator[ObjectServer]:
    """What keeps objects as a cluster's API does, for one test."""
    from object_server import ObjectServer

    server = await ObjectServer().start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, shared by all: make a user of your own, and stop it only to start it again."""
    from postgres import Postgres  # only some tests need its driver

    server = Postgres()
    try:
        yield server.start()
    finally:
        server.delete()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Kubernetes, shared by all: use names of your own."""
    shared = Cluster()
    try:
        yield shared.start()
    finally:
        shared.stop()


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Installed]:
    """The platform in the cluster by the chart, shared by all: use names of your own."""
    from installed_chart import installed_chart

    with installed_chart(cluster, "stoker-installed", {"gateway": {"drainSeconds": 30}}) as one:
        yield one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests that need a cluster where there is none; `pytest_terminal_summary` says so."""
    if running_cluster.is_there():
        return
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason=running_cluster.LEFT_OUT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(running_cluster.LEFT_OUT in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} tests left out, {running_cluster.LEFT_OUT}")


@pytest.fixture
async def broker() -> AsyncIterator[RunningBroker]:
    """A running nats-server for one test."""
    from broker import RunningBroker

    one = RunningBroker()
    try:
        yield one.start()
    finally:
        await one.close_clients()
        one.delete()


def _end(platform: Platform) -> None:
    if platform.log_file.exists():
        print(platform.log)  # pytest shows it where a test has failed
    platform.delete()
