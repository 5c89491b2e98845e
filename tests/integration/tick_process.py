"""A scheduler as a process of its own, whose clock is its standard input: one line is the time of one step.

    python tick_process.py BROKER-SETTINGS-FILE FUNCTIONS-JSON

The functions are read once; each step is answered by a line. A real control process differs by its clock alone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from stoker_gateway.queue.scheduler import Scheduler
from stoker_gateway.queue.tick_store import TickStore
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.function import FunctionStatus


async def main() -> None:
    client = await connect(read_settings(Path(sys.argv[1])), "test")
    store = TickStore(lambda: client)
    functions = msgspec.json.decode(sys.argv[2], type=list[FunctionStatus])
    now = 0.0
    scheduler = Scheduler(lambda: functions, store, store, lambda: now)
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        now = float(line)
        await scheduler.step()
        print(sum(scheduler.missed().values()), flush=True)


asyncio.run(main())
