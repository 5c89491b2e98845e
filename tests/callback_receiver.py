"""Receivers of callbacks for tests: real HTTP servers in this process that note what they get.

async with receiver(answers=[503, 200]) as hooks:    # http://127.0.0.1:PORT, in turn; then 204
    hooks.url("/hook"); hooks.got[0].headers["X-Call-Id"]
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDictProxy

Answer = int | tuple[int, dict[str, str]] | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Got:
    """One request, as it came. `body` is empty where the test answers without reading it."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes = b""


@dataclass
class Receiver:
    """What one server got, oldest first."""

    host: str
    port: int = 0
    scheme: str = "http"
    answers: list[Answer] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "") -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        note = Got(request.method, request.raw_path, request.headers)
        self.got.append(note)
        answer = self.answers.pop(0) if self.answers else 204
        if callable(answer):
            return await answer(request)
        note.body = await request.read()
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receiver(
    *answers: Answer,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    path: Path | None = None,
) -> AsyncIterator[Receiver]:
    """A server on a port of its own, or on a unix socket."""
    made = Receiver(host, scheme="https" if tls else "http", answers=list(answers))
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.UnixSite(runner, path) if path else web.TCPSite(runner, host, port, ssl_context=tls)
    try:
        await site.start()
        made.port = 0 if path else runner.addresses[0][1]
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_receiver(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Receiver]:
    """A server that speaks whatever the test writes, one call of `serve` for each connection."""

    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the caller left, or the test has ended
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield Receiver("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
