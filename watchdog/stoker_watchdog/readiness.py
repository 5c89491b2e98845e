"""Tells when descriptors can be read, for many short-lived ones: one epoll of our own, which the event loop watches.

The event loop's own way makes a handle for each descriptor and five system calls; this makes two. A descriptor that is
closed leaves by itself.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Readiness:
    """Callbacks may be called once more than there is something: whoever reads must not block."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._tell)

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """It will be closed now."""
        del self._callbacks[descriptor]

    def remove(self, descriptor: int) -> None:
        """It stays open."""
        del self._callbacks[descriptor]
        self._epoll.unregister(descriptor)

    def _tell(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback()

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
