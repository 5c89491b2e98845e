"""One run of the builder, as a child process: fed, read line by line, and ended with all that it started.

It has a process group of its own, because a build starts others (pip, tests) that must not outlive it. `Builders` keeps
one of them started ahead, for some minutes after a build or always, because an interpreter and its imports are most of
a small build's time. It is used for one build, as any other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

from stoker_sdk.errors import Unavailable
from stoker_sdk.processes import give_way

MAX_LINE = 1024 * 1024
_REFILL_SECONDS = 0.3
"""So long after a build its successor is started: what was built is deployed meanwhile, and should have the core."""
_KEPT_SECONDS = 300.0
"""So long after the last build one is kept started where none is always: who has built builds again."""
LONGEST_WAIT = 3600.0
"""What has waited longer is ended and not used: its files may have been replaced by an upgrade since."""


class BuildProcess:
    """Its error output, where only bugs print, goes to the platform's own log."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: tuple[str, ...]) -> BuildProcess:
        """Raises `Unavailable` when the command cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, limit=MAX_LINE, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"the builder {command[0]!r} cannot be started: {error.strerror}") from error
        give_way(process.pid)  # it does so itself, but its imports come before that
        return cls(process)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, asked of the kernel: the event loop may not have heard of it yet."""
        if self._process.returncode is not None:
            return False
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def feed(self, upload: AsyncIterator[bytes]) -> None:
        """Pass the upload on as fast as the builder reads. One that ends early says why in its last line."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async for chunk in upload:
                stdin.write(chunk)
                await stdin.drain()
            stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def lines(self) -> AsyncIterator[bytes]:
        """What it prints, line by line; in place of a line beyond 1 MiB stands a sentence that says so."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                line = b"(a line of more than 1 MiB is left out)\n"
            if not line:
                return
            yield line.rstrip(b"\r\n")

    async def settle(self, grace: float) -> int | None:
        """Its exit code, or None when it does not exit within `grace` seconds."""
        try:
            async with asyncio.timeout(grace):
                return await self._process.wait()
        except TimeoutError:
            return None

    async def end(self, grace: float) -> None:
        """TERM, wait, KILL, for the whole group; what the builder left behind after its own end included."""
        self._signal(signal.SIGTERM)
        try:
            await self.settle(grace)
        finally:
            self._signal(signal.SIGKILL)
        # With a limit: a daemon that left the group may hold the pipes, for which some Pythons wait as well.
        await self.settle(grace)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left in the group


class Builders:
    """Gives each build a process of its own, and starts the next one before it is asked for: always with `ahead`, else
    when `kept` seconds have not passed since the last build.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        grace: float,
        *,
        ahead: bool,
        longest_wait: float = LONGEST_WAIT,
        kept: float = _KEPT_SECONDS,
    ) -> None:
        self._command = command
        self._longest_wait = longest_wait
        self._grace = grace
        self._ahead = ahead
        self._kept = kept
        self._closed = not command
        self._waiting: BuildProcess | None = None
        self._since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Start the first one, if that is wanted."""
        if self._ahead:
            self.refill()

    async def take(self) -> BuildProcess:
        """The one that waits, or a new one where there is none, or it has ended. Raises `Unavailable`."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.is_running:
            if time.monotonic() - self._since < self._longest_wait:
                return waiting
            await waiting.end(self._grace)
        return await BuildProcess.start(self._command)

    def refill(self) -> None:
        """Soon start one that waits, if none does."""
        if self._closed:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._start_one(), name="start a builder ahead")
        if not self._ahead:
            self._end_later()

    def _end_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._ending is not None:
            self._ending.cancel()
        self._ending = loop.call_later(self._kept, lambda: loop.create_task(self._end_waiting()))

    async def _start_one(self) -> None:
        try:
            await asyncio.sleep(_REFILL_SECONDS)
            if self._waiting is None:
                self._waiting, self._since = await BuildProcess.start(self._command), time.monotonic()
        except Unavailable:
            pass  # the build itself says so
        finally:
            self._task = None

    async def close(self) -> None:
        """End the one that waits."""
        self._closed = True
        if self._ending is not None:
            self._ending.cancel()
        if self._task is not None:
            self._task.cancel()
        await self._end_waiting()

    async def _end_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await waiting.end(self._grace)
