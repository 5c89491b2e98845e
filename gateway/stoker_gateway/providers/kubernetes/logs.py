"""What a function's pods print, from the cluster's own log: read once and put in order, or followed as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC
from urllib.parse import quote

from stoker_gateway.providers.base import LogLine, LogQuery
from stoker_gateway.providers.kubernetes.api import Api
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.names import FunctionKey

_SILENCE = 3600.0
_PICK_UP_SECONDS = 0.5
_WAITING = 1000
"""Lines that may wait for a slow reader; then the pods' streams wait, and the cluster keeps the rest."""

Names = Callable[[], Sequence[str]]
"""The function's pods at this moment."""


async def read(api: Api, key: FunctionKey, pods: Sequence[str], query: LogQuery) -> list[LogLine]:
    """All lines there are, of all pods, oldest first, cut as the query says."""
    if query.tail == 0:
        return []
    each = await asyncio.gather(*(_of_pod(api, key, pod, query) for pod in pods))
    lines = sorted((line for lines in each for line in lines), key=lambda line: line.timestamp)
    return lines[-query.tail :] if query.tail > 0 else lines


async def _of_pod(api: Api, key: FunctionKey, pod: str, query: LogQuery) -> list[LogLine]:
    async with aclosing(_lines(api, key, pod, query, follow=False)) as lines:
        return [line async for line in lines]


async def follow(
    api: Api, key: FunctionKey, names: Names, exists: Callable[[], bool], query: LogQuery
) -> AsyncGenerator[LogLine, None]:
    """Lines as they come, of pods that come later too, until the function is removed; the caller closes this."""
    waiting: asyncio.Queue[LogLine] = asyncio.Queue(_WAITING)
    readers: dict[str, asyncio.Task[None]] = {}

    async def pump(pod: str) -> None:
        async with aclosing(_lines(api, key, pod, query, follow=True)) as lines:
            async for line in lines:
                await waiting.put(line)

    try:
        while exists():
            for pod in names():
                if pod not in readers:
                    readers[pod] = asyncio.get_running_loop().create_task(pump(pod), name=f"log of {pod}")
            try:
                async with asyncio.timeout(_PICK_UP_SECONDS):
                    line = await waiting.get()
            except TimeoutError:
                readers = {pod: reader for pod, reader in readers.items() if not _to_be_read_again(reader)}
            else:
                yield line
        while not waiting.empty():
            yield waiting.get_nowait()
    finally:
        for reader in readers.values():
            reader.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


def _to_be_read_again(reader: asyncio.Task[None]) -> bool:
    """A pod that could not be read, because its container had not started perhaps."""
    return reader.done() and not reader.cancelled() and isinstance(reader.exception(), StokerError)


async def _lines(
    api: Api, key: FunctionKey, pod: str, query: LogQuery, *, follow: bool
) -> AsyncGenerator[LogLine, None]:
    path = f"/api/v1/namespaces/{quote(key.namespace)}/pods/{quote(pod)}/log"
    asked = {"container": key.name, "timestamps": "true"}
    if follow:
        asked["follow"] = "true"
    if query.tail >= 0:
        asked["tailLines"] = str(query.tail)
    if query.since is not None:
        asked["sinceTime"] = query.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    what = f"log of pod {pod!r}"
    try:
        async with api.stream(path, what, asked, _SILENCE) as reader:
            rest = b""
            async for chunk in reader.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield _line(key, pod, line)
            if rest:
                yield _line(key, pod, rest)
    except (NotFound, BadInput):
        if follow:
            raise  # a container that has not started yet has no log: it is asked again


def _line(key: FunctionKey, pod: str, line: bytes) -> LogLine:
    time, _, text = line.decode(errors="replace").partition(" ")
    return LogLine(key.name, key.namespace, pod, time, text + "\n")
