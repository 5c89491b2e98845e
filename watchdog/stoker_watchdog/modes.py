"""Makes what a replica needs beyond Python handlers: the runner of its mode, and what its front is asked for.

Imported only by replicas that need it, so that those of Python handlers stay as small as they are.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import httptools

from stoker_watchdog.options import FORKING, Options, OptionsError, read_options

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.logs import LogStream
    from stoker_watchdog.runner import Runner
    from stoker_watchdog.settings import Settings

_MODULES = {
    "http": ("http_runner",),
    "streaming": ("program_runner", "streaming_call"),
    "serializing": ("program_runner", "whole_call"),
    "classic": ("program_runner", "whole_call"),
    "static": ("static_runner",),
}


def load(settings: Settings) -> None:
    """Import what a replica will need, before it is confined: its user may not be able to read our files."""
    for name in _MODULES.get(settings.mode, ()):
        import_module(f"stoker_watchdog.{name}")
    if replica_options(settings).jwt_auth:
        # The fork server has taken our packages off the path, so that functions do not find them.
        folder = os.path.dirname(os.path.dirname(httptools.__file__))
        sys.path.append(folder)
        try:
            import_module("stoker_watchdog.tokens")
        finally:
            sys.path.remove(folder)


def replica_options(settings: Settings) -> Options:
    """The options of a replica on one machine, where the log has time and stream already. Raises `OptionsError`."""
    options = read_options(settings.environment, mode=settings.mode, prefix_logs=False)
    return dataclasses.replace(options, command=tuple(settings.command) or options.command)


def make_runner(settings: Settings, log: LogStream) -> Runner:
    """The runner of a replica on one machine. Raises `OptionsError`."""
    options = replica_options(settings)
    options.check()
    return runner_of(options, log)


def runner_of(options: Options, log: LogStream) -> Runner:
    """The runner of every mode but `python`."""
    if options.mode in FORKING:
        from stoker_watchdog.program_runner import ProgramRunner

        return ProgramRunner(options, log)
    if options.mode == "http":
        from stoker_watchdog.http_runner import HttpRunner

        return HttpRunner(options, log)
    if options.mode == "static":
        from stoker_watchdog.static_runner import StaticRunner

        return StaticRunner(options)
    raise OptionsError(f"mode {options.mode!r} cannot run here")


async def equip(front: Front, options: Options, log: LogStream) -> None:
    """Give the front what the options ask for. Raises `OptionsError` when the keys of a token check cannot be got."""
    options.check_shared()
    front.ready_path = options.ready_path.encode("latin-1", "replace")
    if options.jwt_auth:
        from stoker_watchdog.tokens import TokenGuard

        guard = TokenGuard(options, log)
        await asyncio.to_thread(guard.load)
        front.guard = guard
