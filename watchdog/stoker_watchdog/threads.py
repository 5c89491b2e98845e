"""Threads for handlers that are plain functions: started when needed, at most so many, results handed to the loop.

`concurrent.futures` makes a future, a condition and several locks for each call; this makes none, and wakes the loop
once for all results that are there.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Work = Callable[[], None]

_STACK = 4 * 1024 * 1024


class Threads:
    """`run` queues work for a thread; `post` gives the loop something to do from a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle: deque[None] = deque()  # one entry for each idle thread: its changes are atomic, a number's are not
        self._posts: deque[tuple[Callable[..., None], Any, Any]] = deque()
        self._woken = False
        threading.stack_size(_STACK)

    def run(self, work: Work) -> None:
        if len(self._idle) <= self._work.qsize() and len(self._threads) < self._most:
            name = f"handler-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put(work)

    def _serve(self) -> None:
        while True:
            self._idle.append(None)
            work = self._work.get()
            self._idle.pop()
            if work is None:
                return
            work()

    def close(self) -> None:
        """End the threads, each after the work that it has. Returns when all have ended."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def post(self, function: Callable[..., None], first: Any, second: Any) -> None:
        """Have the loop call `function(first, second)` soon."""
        self._posts.append((function, first, second))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._take_posts)

    def _take_posts(self) -> None:
        self._woken = False
        posts = self._posts
        while posts:
            function, first, second = posts.popleft()
            function(first, second)
