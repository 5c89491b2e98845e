"""One run as a child process: started with its job, read line by line, ended with all that it started.

It reads what strangers wrote (YAML, trees of files), so it is not the pipeline itself that a hostile repository can
fill or crash; and a run is cancelled by ending it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from stoker_builder.pipeline.job import Answer, Job, Report
from stoker_sdk.processes import give_way

_MAX_LINE: Final = 8 * 1024 * 1024
_GRACE: Final = 5.0


class RunProcess:
    """Its error output, where only bugs print, goes to the platform's log."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> RunProcess:
        """It waits for its job, so it may be started before there is one."""
        command = [sys.executable, "-P", "-m", "stoker_builder.pipeline.run"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=_MAX_LINE, start_new_session=True
        )
        give_way(process.pid)  # it does so itself, but its imports come before that
        return cls(process)

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def begin(self, job: Job) -> None:
        await self._send(msgspec.json.encode(job))

    async def answer(self, answer: Answer) -> None:
        await self._send(msgspec.json.encode(answer))

    async def reports(self) -> AsyncIterator[Report]:
        """What it says, until it ends."""
        stdout = self._process.stdout
        assert stdout is not None
        while line := await stdout.readline():
            yield msgspec.json.decode(line, type=Report)

    async def end(self) -> None:
        """TERM, wait, KILL, for the whole group."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
        await self._process.wait()

    async def _send(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # its end is seen by whoever reads

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass
