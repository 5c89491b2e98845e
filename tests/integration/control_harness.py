"""A real control API on a unix socket, around the in-memory provider, and ways to talk to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout, UnixConnector, web

from stoker_gateway.control.app import make_app, make_runner
from stoker_gateway.control.config import ControlConfig
from stoker_gateway.control.metrics import make_metrics_app
from stoker_gateway.control.namespaces import empty_namespace
from stoker_gateway.counters import Counters, MemoryCounters
from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.providers.memory import MemoryProvider
from stoker_gateway.routes import Route
from stoker_gateway.secrets import FileSecrets, SecretStore
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.names import FunctionKey

PASSWORD = "the password"
GREET = FunctionKey("openfaas-fn", "greet")


@dataclass
class Control:
    """The running API: its parts, and a client that knows the password."""

    client: ClientSession
    socket: Path
    metrics_socket: Path
    provider: MemoryProvider
    secrets: SecretStore
    counters: MemoryCounters

    async def deploy(self, name: str = "greet", **fields: Any) -> None:
        body = {"service": name, "image": "example/greet:1"} | fields
        async with self.client.post("/system/functions", json=body) as response:
            assert response.status == 202, await response.text()

    async def raw(self, head: str, body: bytes = b"") -> bytes:
        """Send bytes as they are, so that no client tidies them, and read all that comes back."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer


@asynccontextmanager
async def running_control(
    folder: Path, *, provider: Provider | None = None, counters: Counters | None = None, **settings: Any
) -> AsyncIterator[Control]:
    memory, counted = MemoryProvider(), MemoryCounters()
    store = SecretStore(folder / "secrets", folder / "key")
    config = ControlConfig(BasicAuth("admin", PASSWORD), **({"presence_poll": 0.02} | settings))
    namespaces = NamespaceStore(folder / "namespaces", folder / "set-aside")
    app = make_app(config, provider or memory, FileSecrets(store), namespaces, counters or counted)
    await namespaces.finish_deletions(lambda name: empty_namespace(app, name))
    await memory.start(_ignore)
    socket, metrics_socket = folder / "control.sock", folder / "metrics.sock"
    runners = [await _serve(app, socket), await _serve(make_metrics_app(app), metrics_socket)]
    try:
        async with open_client(socket, {"Authorization": credentials("admin", PASSWORD)}) as client:
            yield Control(client, socket, metrics_socket, memory, store, counted)
    finally:
        for runner in runners:
            await runner.cleanup()


def credentials(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def open_client(socket: Path, headers: dict[str, str] | None = None) -> ClientSession:
    return ClientSession(
        "http://control",
        connector=UnixConnector(str(socket)),
        headers=headers,
        timeout=ClientTimeout(total=30),
    )


async def assert_error(response: ClientResponse, status: int, code: str, *words: str) -> None:
    """An error as the contract and our own header want it: plain text, a side, a code, words that help."""
    text = await response.text()
    assert response.status == status, text
    side = "platform" if status >= 500 else "client"
    assert response.headers["X-Stoker-Error"] == f"{side}; {code}"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert text.endswith("\n") and text.strip()
    for word in words:
        assert word in text


async def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    """Wait for the condition, not for luck."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


async def _serve(app: web.Application, socket: Path) -> web.AppRunner:
    runner = make_runner(app)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    return runner


async def _ignore(key: FunctionKey, route: Route | None) -> None:
    return None
