"""The connection to the fork server: commands out, events in, and a new connection when the server was restarted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

log = logging.getLogger("stoker.forklink")

_RETRY_SECONDS = 0.05


class RunningReplica(msgspec.Struct, frozen=True):
    """A replica that the fork server had already when we connected."""

    id: str
    pid: int
    ready: bool
    stopping: bool
    health: str = ""


class Event(msgspec.Struct, frozen=True):
    """What the fork server says. Which fields are filled depends on `event`: started, ready, health, exited,
    replicas. `health` is why the replica cannot serve for now, and empty when it can.
    """

    event: str
    id: str = ""
    pid: int = 0
    seconds: float = 0.0
    exit: str = ""
    failure: str = ""
    code: str = ""
    health: str = ""
    replicas: list[RunningReplica] = []


_decode = msgspec.json.Decoder(Event).decode


class ForkLink:
    """`heard` gets every event; `lost` is called when the connection ends, which means that every replica has ended."""

    def __init__(self, path: str, heard: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self._path = path
        self._heard = heard
        self._lost = lost
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()

    async def open(self) -> None:
        """Connect, for as long as it takes; the list of running replicas is the first event."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="fork server link")
        await self.connected.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()

    def start(self, id: str, *, settings: str, socket: str, log: str, key: str) -> None:
        self._send({"op": "start", "id": id, "settings": settings, "socket": socket, "log": log, "key": key})

    def stop(self, id: str, signal: int) -> None:
        self._send({"op": "stop", "id": id, "signal": signal})

    def forget(self, key: str) -> None:
        """No more replicas of this revision will be started: its zygote may go."""
        self._send({"op": "forget", "key": key})

    def _send(self, command: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(msgspec.json.encode(command) + b"\n")

    async def _run(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=1 << 24)
                self._send({"op": "list"})
                await self._follow(reader)
            except OSError as error:
                log.debug("fork server: %s", error)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
                self.connected.clear()
                self._lost()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            event = _decode(line)
            self._heard(event)
            if event.event == "replicas":
                self.connected.set()
