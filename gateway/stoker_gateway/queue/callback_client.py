"""The HTTP client of callbacks: dials what the guard has checked, adds nothing, and reads little."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from stoker_gateway.queue.addresses import Guard
from stoker_sdk.errors import Unavailable

MAX_ANSWER: Final = 4096
"""Bytes of a receiver's answer that are read, so that its connection can be used again. Nobody looks at them."""

_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class GuardedResolver(AbstractResolver):
    """Gives the client the addresses that the guard has checked, and no others."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._guard.addresses(host)
        ]

    async def close(self) -> None:
        """The guard is its owner's to close."""


class Gates:
    """Bounds the requests that are on their way, to each receiver and in all."""

    def __init__(self, parallel: int, per_host: int) -> None:
        self._all = asyncio.Semaphore(parallel)
        self._per_host = per_host
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def enter(self, origin: str, seconds: float) -> AsyncIterator[None]:
        """Raises `Unavailable` when no place becomes free in time."""
        gate = self._gates.setdefault(origin, _Gate(asyncio.Semaphore(self._per_host)))
        gate.users += 1
        try:
            async with AsyncExitStack() as places:
                await self._wait(gate, places, seconds)
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[origin]

    async def _wait(self, gate: _Gate, places: AsyncExitStack, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await places.enter_async_context(gate.semaphore)
                await places.enter_async_context(self._all)
        except TimeoutError:
            raise Unavailable(f"too many callbacks are on their way; none ended within {seconds:g} s") from None


@dataclass(slots=True)
class _Gate:
    semaphore: asyncio.Semaphore
    users: int = 0


def session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """No cookies, no decompression, no proxy from the environment, nothing added to the headers."""
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_AUTO_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),
    )


async def read_some(answer: aiohttp.ClientResponse) -> None:
    """A short answer frees its connection for the next; a long or slow one is cut off."""
    try:
        async with asyncio.timeout(1.0):
            left = MAX_ANSWER
            while left > 0 and (piece := await answer.content.read(left)):
                left -= len(piece)
    except (TimeoutError, aiohttp.ClientError, OSError):
        left = 0
    if left <= 0:
        answer.close()
