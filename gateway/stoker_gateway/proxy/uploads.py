"""The large bodies that are on their way through a proxy into the object store, and the end of those without a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.subjects import CALLS
from stoker_gateway.queue.upload import Source, Upload
from stoker_sdk.errors import StokerError

if TYPE_CHECKING:
    from nats.aio.client import Client

    from stoker_gateway.queue.publisher import Publisher

log = logging.getLogger("stoker.proxy")

_MOST: Final = 64
"""At a time: each has up to two megabytes in memory."""
_TRIES: Final = 60


class Uploads:
    """`client` gives the connection, once there is one."""

    def __init__(self, client: Callable[[], Client | None]) -> None:
        self._client = client
        self._running: set[Upload] = set()
        self._removals: set[asyncio.Task[None]] = set()

    def begin(
        self,
        publisher: Publisher | None,
        source: Source,
        failed: Callable[[str], None],
        forget: Callable[[str], None],
    ) -> Upload | None:
        """None: too many run already."""
        if publisher is None or len(self._running) >= _MOST:
            return None
        upload = Upload(publisher, source, failed, forget)
        self._running.add(upload)
        return upload

    def end(self, upload: Upload, *, kept: bool) -> None:
        """Its call is stored, or will not be."""
        self._running.discard(upload)
        if not kept:
            upload.give_up()

    def remove(self, name: str, subject: str) -> None:
        """Remove a body, unless its call (a subject, or empty) is stored after all. What fails is left to control."""
        task = asyncio.get_running_loop().create_task(self._remove(name, subject), name=f"remove {name}")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove(self, name: str, subject: str) -> None:
        from stoker_gateway.queue.bodies import remove
        from stoker_sdk.broker.lookup import last_of

        for _ in range(_TRIES):
            client = self._client()
            try:
                if client is not None:
                    if not subject or await last_of(client, CALLS, subject) is None:
                        await remove(client, name)
                    return
            except StokerError as error:
                log.debug("%s", error)
            await asyncio.sleep(1)
        log.warning("the body %s of a call that was not accepted is not removed yet", name)

    def give_up(self) -> None:
        for upload in list(self._running):
            self.end(upload, kept=False)

    async def close(self, seconds: float) -> None:
        """Wait for the removals."""
        if self._removals:
            await asyncio.wait(self._removals, timeout=seconds)
