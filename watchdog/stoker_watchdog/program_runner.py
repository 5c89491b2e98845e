"""Modes `streaming`, `serializing` and `classic`: a process for each call (contract sections 8.2, 8.3 and 8.7)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from stoker_watchdog.call import Call
from stoker_watchdog.front import Front
from stoker_watchdog.logs import LogStream
from stoker_watchdog.options import Options
from stoker_watchdog.process import Process
from stoker_watchdog.programs import Program
from stoker_watchdog.readiness import Readiness
from stoker_wire.server import Exchange

_END_SECONDS = 1.0


class ProgramRunner:
    """Implements `Runner`. `program` is there when it is open; `running` are the processes of the calls."""

    program: Program
    readiness: Readiness

    has_health = False

    def __init__(self, options: Options, log: LogStream) -> None:
        self.options = options
        self.log = log
        self.running: set[Process] = set()
        if options.mode == "streaming":
            from stoker_watchdog.streaming_call import StreamingCall as Shape
        else:
            from stoker_watchdog.whole_call import WholeCall as Shape  # type: ignore[assignment]
        self._shape = Shape

    async def open(self) -> None:
        """Raises `MissingProgram`."""
        self.readiness = Readiness(asyncio.get_running_loop())
        self.program = Program(self.options.command, os.environ)

    def watch(self, end: Callable[[str], None]) -> None: ...

    def call(self, front: Front, exchange: Exchange) -> Call:
        return self._shape(self, front, exchange)

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        """Calls that took longer than the drain: their processes do not outlive us."""
        for process in list(self.running):
            process.kill()
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while self.running and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        self.readiness.close()
