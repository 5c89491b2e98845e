"""Two connections joined after an upgrade: every byte passes both ways, with back-pressure, until one side ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class _Half(asyncio.Protocol):
    """The protocol of one transport, which writes what it reads to the other."""

    def __init__(self, tunnel: Tunnel, other: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._other = other

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def pause_writing(self) -> None:
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.close()


class Tunnel:
    """Joins two transports; `closed` is called once, when both are closing."""

    def __init__(self, client: asyncio.Transport, upstream: asyncio.Transport, closed: Callable[[], None]) -> None:
        self._ends = (client, upstream)
        self._closed: Callable[[], None] | None = closed
        client.set_protocol(_Half(self, upstream))
        upstream.set_protocol(_Half(self, client))

    def open(self, from_client: bytes, from_upstream: bytes) -> None:
        """Pass on what either side had sent behind its head, and read on."""
        client, upstream = self._ends
        if from_client:
            upstream.write(from_client)
        if from_upstream:
            client.write(from_upstream)
        for end in self._ends:
            if not end.is_closing():
                end.resume_reading()

    def close(self) -> None:
        for end in self._ends:
            if not end.is_closing():
                end.close()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
