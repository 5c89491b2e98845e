"""Ends of the platform's processes with `kill -9`, at moments that hurt: while a push is on its way."""

from __future__ import annotations

import os
import random
import signal
import time

from running_platform import Platform, command_line, is_alive, wait_for

_MODULES = {"run": "stoker_builder.pipeline.run", "builder": "stoker_builder"}
ROLES = ("pipeline", *_MODULES, "control", "broker", "fork server", "worker 0")


def kill_while_a_push_goes(platform: Platform, role: str, chance: random.Random) -> bool:
    """At a random moment of the push, or of the process's life where that is shorter. Whether there was such a one."""
    if role in _MODULES:
        deadline = time.monotonic() + 3
        while not _pid(platform, role) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.3)
    else:
        time.sleep(chance.random() * 1.2)
    if not (pid := _pid(platform, role)):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    wait_for(lambda: not is_alive(pid), f"the end of {role}")
    return True


def _pid(platform: Platform, role: str) -> int:
    if role in _MODULES:
        return next((pid for pid in platform.processes() if _MODULES[role] in command_line(pid)), 0)
    return platform.pids().get(role, 0)
