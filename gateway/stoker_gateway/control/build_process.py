"""One run of the builder, as a child process: fed, read line by line, and ended with all that it started.

It has a process group of its own, because a build starts others (pip, tests) that must not outlive it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

from stoker_sdk.errors import Unavailable

MAX_LINE = 1024 * 1024


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
        return cls(process)

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
