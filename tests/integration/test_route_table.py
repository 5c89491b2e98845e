"""Control's table and its proxies over their real socket: public addresses and shares of rates reach every proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from raw_http import engine_loops, until

from stoker_gateway.control.owner_limits import OwnerLimits, RateSettings
from stoker_gateway.control.proxies import Proxies
from stoker_gateway.endpoints import Endpoints, HostPolicy
from stoker_gateway.proxy.__main__ import ControlLink
from stoker_gateway.proxy.hosts import Hosts
from stoker_gateway.proxy.proxy import Proxy
from stoker_gateway.routes import Route
from stoker_sdk.names import FunctionKey, key_from_route

DOMAIN = "faas.example.org"


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


async def wake(key: FunctionKey) -> None:
    """Nobody calls here."""


@asynccontextmanager
async def control(socket: Path, rate: float = 0.0) -> AsyncIterator[Proxies]:
    proxies = Proxies(wake, Endpoints(HostPolicy(DOMAIN)), OwnerLimits(RateSettings(rate)))
    await proxies.listen(str(socket))
    yield proxies
    await proxies.close()


@asynccontextmanager
async def connected(socket: Path, number: int) -> AsyncIterator[list[Proxy]]:
    """So many proxies that follow the table."""
    links = [ControlLink(str(socket)) for _ in range(number)]
    for link in links:
        link.proxy = Proxy("unix:/nowhere", link.wake, max_body=1, max_waiting=1, hosts=Hosts(DOMAIN))
    tasks = [asyncio.create_task(link.run()) for link in links]
    for link in links:
        await link.loaded.wait()
        link.send_counters()
    yield [link.proxy for link in links if link.proxy is not None]
    for task in tasks:
        task.cancel()
    for link in links:
        if link.proxy is not None:
            link.proxy.close()


def route(key: str, created_at: str, host: str = "api.example.com") -> Route:
    annotations = {"stoker.dev/routes": f'[{{"host":"{host}"}}]'}
    return Route(key, 1.0, 0, [], annotations=annotations, created_at=created_at)


def who(proxy: Proxy, host: bytes) -> str:
    found = proxy._hosts.find(host)
    mount = found.find(b"/") if found else None
    return mount[0].entry.key if mount else ""


async def put(table: Proxies, key: str, value: Route | None) -> None:
    await table.route_changed(key_from_route(key), value)


async def test_an_address_goes_to_the_next_one_in_every_proxy(tmp_path: Path) -> None:
    socket = tmp_path / "table"
    async with control(socket) as table, connected(socket, 2) as proxies:
        await put(table, "young.ns", route("young.ns", "2"))
        assert [who(proxy, b"api.example.com") for proxy in proxies] == ["young.ns"] * 2
        await put(table, "old.ns", route("old.ns", "1"))
        assert [who(proxy, b"api.example.com") for proxy in proxies] == ["old.ns"] * 2
        await put(table, "old.ns", route("old.ns", "1", "other.example.com"))
        assert [who(proxy, b"api.example.com") for proxy in proxies] == ["young.ns"] * 2
        assert [who(proxy, b"other.example.com") for proxy in proxies] == ["old.ns"] * 2
        async with connected(socket, 1) as late:
            assert who(late[0], b"api.example.com") == "young.ns"
        await put(table, "young.ns", None)
        assert [who(proxy, b"api.example.com") for proxy in proxies] == [""] * 2


async def test_the_share_goes_to_the_proxy_that_has_the_calls(tmp_path: Path) -> None:
    socket = tmp_path / "table"
    async with control(socket, rate=100.0) as table, connected(socket, 2) as (busy, quiet):
        await put(table, "f.ns", route("f.ns", "1"))
        await until(lambda: shares(busy, quiet) == [50.0, 50.0], "even shares")

        def call() -> list[float]:
            for _ in range(50):
                busy.rates.wait_of("alice", busy.now)
            return shares(busy, quiet)

        await until(lambda: call() == [98.0, 2.0], "a share by demand")
        await until(lambda: shares(busy, quiet) == [50.0, 50.0], "even shares again")


def shares(*proxies: Proxy) -> list[float]:
    """What each proxy has of alice's rate."""
    found = [proxy.rates._limits for proxy in proxies]
    return [round(limits.owners.get("alice", limits.rest), 6) for limits in found]
