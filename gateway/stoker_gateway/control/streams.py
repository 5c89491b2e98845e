"""Answers that come line by line (NDJSON), for as long as the client listens.

A client that goes away ends the work. An answer that fails after its head went out is broken off, so that
it is never taken for a complete one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import web

from stoker_gateway.control.keys import CONFIG, STOPPING

log = logging.getLogger(__name__)


class LineStream:
    """A 200 answer of JSON lines. Its head goes out with `open`, or else with the first line."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})

    @property
    def is_open(self) -> bool:
        return self._response.prepared

    async def open(self) -> None:
        if not self.is_open:
            await self._response.prepare(self._request)

    async def send(self, line: Any) -> None:
        """Send a struct or a dict as one line; waits while the client is slow."""
        await self.open()
        await self._response.write(msgspec.json.encode(line) + b"\n")

    async def close(self) -> web.StreamResponse:
        await self.open()
        await self._response.write_eof()
        return self._response

    def abort(self) -> web.StreamResponse:
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response


async def answer_with_lines(
    request: web.Request, work: Callable[[LineStream], Coroutine[Any, Any, None]]
) -> web.StreamResponse:
    """Let `work` send lines until it returns, the client leaves or the platform stops.

    What it raises before the first line becomes an ordinary error answer.
    """
    stream = LineStream(request)
    try:
        if await _while_listened_to(request, work(stream)):
            return await stream.close()
    except ConnectionResetError:
        pass  # the client left between two looks
    except Exception:
        if not stream.is_open:
            raise
        log.exception("%s %s broke off", request.method, request.path)
    return stream.abort()


async def _while_listened_to(request: web.Request, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work came to its end; it is cancelled when nobody listens any more."""
    task = asyncio.create_task(work, name=f"answer {request.path}")
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=request.app[CONFIG].presence_poll)
            if not task.done() and _is_over(request):
                return False
        await task
        return True
    finally:
        await end_task(task)


def _is_over(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing() or request.app[STOPPING].is_set()


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has tidied up; its outcome is left in it."""
    task.cancel()
    await asyncio.wait({task})
