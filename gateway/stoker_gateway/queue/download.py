"""A large body on its way from the object store to a proxy, no faster than that takes it.

Size and digest are known to be right before the last byte goes out, so a function never has a whole body that is not
the caller's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.bodies import chunk_subject
from stoker_gateway.queue.stored import BodyRef
from stoker_gateway.queue.subjects import BODIES
from stoker_sdk.broker.lookup import Found, page_of
from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

    from stoker_wire.client import ClientConnection

log = logging.getLogger("stoker.worker")

MOST_DOWNLOADS: Final = 32
"""Of one worker at a time: each has some megabytes in memory."""
_PAGE_BYTES: Final = 2 * 1024 * 1024
_PAGE: Final = 16
_PATIENCE: Final = 30.0
"""Seconds that a broker may be away; a proxy waits longer for a body's next byte."""


class BrokenBody(Exception):
    """The body is not there, or not as it was; the text says what is wrong."""


class Download:
    """Sends the body on a connection whose head is sent. `failed` is told why, when it cannot: `BrokenBody` for good,
    `Unavailable` when it may be there later. It is among `running` until the last byte is sent.
    """

    def __init__(
        self,
        client: Client,
        body: BodyRef,
        connection: ClientConnection,
        failed: Callable[[BrokenBody | Unavailable], None],
        running: set[Download],
    ) -> None:
        self._client = client
        self._body = body
        self._connection = connection
        self._failed = failed
        self._free = asyncio.Event()
        self._free.set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"body {body.name}")
        running.add(self)
        self._task.add_done_callback(lambda _: running.discard(self))

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def stop(self) -> None:
        """The connection has ended, or is to."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._send()
        except (BrokenBody, Unavailable) as error:
            self._failed(error)
        except Exception as error:
            log.exception("body %s", self._body.name)
            self._failed(Unavailable(f"its body could not be sent: {error!r}"))

    async def _send(self) -> None:
        body, digest = self._body, hashlib.sha256()
        size = number = sequence = 0
        while number < body.chunks:
            page = await self._next(sequence + 1)
            if not page:
                raise BrokenBody(f"piece {number + 1} of {body.chunks} of its body is missing in the object store")
            for chunk in page[: body.chunks - number]:
                number += 1
                size += len(chunk.data)
                digest.update(chunk.data)
                if number == body.chunks or size >= body.size:  # never a byte behind the request
                    self._check(number, size, digest.hexdigest())
                await self._free.wait()
                self._connection.send_body(chunk.data)
            sequence = page[-1].sequence
        self._connection.end_body()

    def _check(self, number: int, size: int, digest: str) -> None:
        if size != self._body.size or number != self._body.chunks:
            raise BrokenBody(
                f"its body has {size} bytes after {number} pieces in the object store, "
                f"and had {self._body.size} in {self._body.chunks}"
            )
        if digest != self._body.digest:
            raise BrokenBody("its body is not what it was: its SHA-256 in the object store is another")

    async def _next(self, sequence: int) -> list[Found]:
        """The next pieces, waiting a while for a broker that is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            try:
                return await page_of(self._client, BODIES, chunk_subject(self._body.name), sequence, _PAGE, _PAGE_BYTES)
            except Unavailable as error:
                if loop.time() > deadline:
                    raise
                log.debug("body %s: %s", self._body.name, error)
                await asyncio.sleep(0.2)
