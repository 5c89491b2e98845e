"""The platform's APIs as the pages use them: control's and the pipeline's, past the proxies, with its password."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, StreamReader, TCPConnector, UnixConnector

from stoker_sdk.credentials import basic_authorization
from stoker_sdk.data_dir import ADMIN
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionStatus
from stoker_sdk.messages import FunctionFigures, LogMessage, Revision
from stoker_sdk.runs import Run, RunLine

T = TypeVar("T")
Query = Mapping[str, str]

_ANSWERS = {400: BadInput, 404: NotFound, 409: Conflict, 503: Unavailable}
_SECONDS = 15.0
_MAX_LINE = 1024 * 1024
_MAX_ANSWER = 64 * 1024
"""Bytes of a function's answer that are shown."""


@dataclass(frozen=True)
class FunctionAnswer:
    """What a function answered. `text` is at most `_MAX_ANSWER` bytes of it, empty where it is none."""

    status: int
    seconds: float
    text: str
    is_text: bool
    is_cut: bool


class Backend:
    """Methods raise `StokerError`s: what the API answered. Addresses are `unix:/path` or `tcp:host:port`. `has_git`
    says whether the pipeline is worth asking: that may start its process. `proxy` is for calls from inside; empty
    where there is none.
    """

    def __init__(
        self, control: str, pipeline: str, password: str, has_git: Callable[[], bool], proxy: str = ""
    ) -> None:
        authorization = basic_authorization(ADMIN, password)
        self._control = _session(control, authorization)
        self._pipeline = _session(pipeline, authorization) if pipeline else None
        self._has_git = has_git
        self._proxy = _session(proxy, "") if proxy else None

    async def close(self) -> None:
        await self._control.close()
        if self._proxy is not None:
            await self._proxy.close()
        if self._pipeline is not None:
            await self._pipeline.close()

    @property
    def has_git(self) -> bool:
        """Whether there may be runs."""
        return self._pipeline is not None and self._has_git()

    @property
    def can_push(self) -> bool:
        """Whether functions can come by git here."""
        return self._pipeline is not None

    # Functions

    async def functions(self) -> list[FunctionStatus]:
        """Of all namespaces."""
        found = []
        for namespace in await self._get(self._control, "/system/namespaces", list[str]):
            query = {"namespace": namespace}
            found += await self._get(self._control, "/system/functions", list[FunctionStatus], query)
        return found

    async def figures(self) -> list[FunctionFigures]:
        return await self._get(self._control, "/system/figures", list[FunctionFigures])

    async def function(self, namespace: str, name: str) -> FunctionStatus:
        query = {"namespace": namespace, "usage": "true"}
        return await self._get(self._control, f"/system/function/{quote(name, safe='')}", FunctionStatus, query)

    async def revisions(self, namespace: str, name: str) -> list[Revision]:
        path = f"/system/function/{quote(name, safe='')}/revisions"
        return await self._get(self._control, path, list[Revision], {"namespace": namespace})

    async def log_tail(self, namespace: str, name: str, lines: int) -> list[LogMessage]:
        query = {"namespace": namespace, "name": name, "tail": str(lines)}
        async with self._streamed(self._control, "/system/logs", query) as stream:
            return [msgspec.json.decode(line, type=LogMessage) async for line in stream]

    @property
    def can_call(self) -> bool:
        """Whether functions can be called from here."""
        return self._proxy is not None

    async def call(self, namespace: str, name: str, body: str) -> FunctionAnswer:
        """Call the function with a text. Its answer, whatever its status, is an answer."""
        if self._proxy is None:
            raise NotFound("functions cannot be called from here")
        path = f"/function/{quote(name, safe='')}.{quote(namespace, safe='')}"
        headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "stoker-pages"}
        began = time.monotonic()
        try:
            async with self._proxy.post(path, data=body.encode(), headers=headers, allow_redirects=False) as response:
                data = await _read_some(response.content, _MAX_ANSWER + 1)
                took, status = time.monotonic() - began, response.status
        except TimeoutError:
            raise Unavailable(f"{name} did not answer within {_SECONDS:g} seconds: call it by its address") from None
        except (ClientError, OSError) as error:
            raise _away(error) from error
        shown = data[:_MAX_ANSWER]
        text = shown.decode(errors="replace")
        is_text = "\0" not in text and text.count("\ufffd") <= 1  # one may have been cut in the middle
        return FunctionAnswer(status, took, text if is_text else "", is_text, len(data) > len(shown))

    # Runs

    async def runs(self, *, owner: str = "", repository: str = "", limit: int = 50) -> list[Run]:
        """The newest first; none where there is no git."""
        if self._pipeline is None or not self.has_git:
            return []
        query = {"owner": owner, "repository": repository, "limit": str(limit)}
        return await self._get(self._pipeline, "/system/runs", list[Run], query)

    async def run(self, id: int) -> Run:
        return await self._get(self._git(), f"/system/runs/{id}", Run)

    async def run_lines(self, id: int) -> list[RunLine]:
        """The log so far."""
        async with self._streamed(self._git(), f"/system/runs/{id}/log", {}) as stream:
            return [msgspec.json.decode(line, type=RunLine) async for line in stream]

    async def follow_run(self, id: int) -> AsyncIterator[RunLine]:
        """The log from its beginning until the run has ended."""
        query = {"follow": "true"}
        async with self._streamed(self._git(), f"/system/runs/{id}/log", query) as stream:
            async for line in stream:
                yield msgspec.json.decode(line, type=RunLine)

    async def retry_run(self, id: int) -> Run:
        return await self._send("POST", f"/system/runs/{id}/retry")

    async def cancel_run(self, id: int) -> Run:
        return await self._send("DELETE", f"/system/runs/{id}")

    def _git(self) -> ClientSession:
        if self._pipeline is None or not self.has_git:
            raise NotFound("there are no runs here")
        return self._pipeline

    async def _send(self, method: str, path: str) -> Run:
        try:
            async with self._git().request(method, path) as response:
                return _decoded(response.status, await response.read(), Run)
        except (ClientError, TimeoutError, OSError) as error:
            raise _away(error) from error

    async def _get(self, session: ClientSession, path: str, kind: type[T], query: Query | None = None) -> T:
        try:
            async with session.get(path, params=query) as response:
                return _decoded(response.status, await response.read(), kind)
        except (ClientError, TimeoutError, OSError) as error:
            raise _away(error) from error

    @asynccontextmanager
    async def _streamed(self, session: ClientSession, path: str, query: Query) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer that may take as long as it likes."""
        try:
            async with session.get(path, params=query, timeout=ClientTimeout(connect=_SECONDS)) as response:
                if response.status != 200:
                    _decoded(response.status, await response.read(), bytes)
                yield aiter(response.content)
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise _away(error) from error


async def _read_some(stream: StreamReader, limit: int) -> bytes:
    """To the stream's end, or so many bytes."""
    data = b""
    while len(data) < limit and (more := await stream.read(limit - len(data))):
        data += more
    return data


def _session(address: str, authorization: str) -> ClientSession:
    kind, _, place = address.partition(":")
    return ClientSession(
        f"http://{place}" if kind == "tcp" else "http://platform",
        connector=TCPConnector(limit=0) if kind == "tcp" else UnixConnector(place, limit=0),
        headers={"Authorization": authorization} if authorization else None,
        cookie_jar=DummyCookieJar(),  # one function's cookies are not for another, nor for who calls next
        timeout=ClientTimeout(total=_SECONDS),
        read_bufsize=_MAX_LINE,
    )


def _decoded(status: int, body: bytes, kind: type[T]) -> T:
    if status // 100 != 2:
        raise _ANSWERS.get(status, StokerError)(body.decode(errors="replace").strip()[:1000])
    return msgspec.json.decode(body, type=kind)


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"a part of the platform does not answer now ({type(error).__name__}): try again in a moment")
