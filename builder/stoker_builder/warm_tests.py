"""An interpreter for the next tests of Python functions, started ahead, which has imported pytest and the packages that
the last tested function imports. Imports are most of what small tests take, and who has pushed pushes again.

It is confined as tests are, by the same user id, bounds, files and network, and runs the tests of one build, if they
want what it was started for; else it is ended, and they start as ever. What it imports are packages of that
environment, which its tests would import. The build before leaves a note of what to import, the builder that control
keeps started for the next build heeds it, and some minutes after that note nothing waits any more.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stoker_builder.child import Account, Children, Confinement, Limits, Program, adopt_orphans, end, start
from stoker_builder.config import Config, StepSettings
from stoker_builder.confinement import own_files_of
from stoker_builder.control_group import ControlGroup, control_group
from stoker_builder.imports import modules_ahead
from stoker_builder.interpreter import prepare_interpreter, variables_of_tests
from stoker_builder.languages.base import TestStep
from stoker_builder.languages.python import Python
from stoker_builder.places import Place, place_for_tests
from stoker_builder.plan import Plan
from stoker_builder.staging import staging_folder
from stoker_builder.usage import Usage
from stoker_sdk.errors import StokerError

COMMAND: Final = ("python", "-m", "pytest")
"""What it can do: `python -m pytest` with any arguments."""
KEPT_SECONDS: Final = 300.0
"""So long after a build it waits at most, as builders do that are not kept for ever."""
_NOTE: Final = "last-tests.json"
_LOOK_SECONDS: Final = 1.0
_READY_SECONDS: Final = 10.0
"""So long tests wait for its imports, which they would begin anew without it."""
_READY: Final = b"."
_WAITING: Final = """
import gc, importlib, json, os, runpy, sys
try:
    import pdb, pytest
    from _pytest.config import default_plugins
    for name in [*("_pytest." + plugin for plugin in default_plugins), *sys.argv[2:]]:
        importlib.import_module(name)
except BaseException:
    os._exit(1)
gc.collect()
gc.freeze()
os.write(0, b".")
line = sys.stdin.readline()
if not line:
    os._exit(0)
job = json.loads(line)
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
os.close(nothing)
os.environ.clear()
os.environ.update(job["environment"])
os.chdir(job["folder"])
sys.path[:] = job["path"] + sys.path[1 + int(sys.argv[1]):]
sys.argv[:] = job["arguments"]
importlib.invalidate_caches()
del gc, importlib, json, line, name, nothing, job, pdb
runpy.run_module("pytest", run_name="__main__", alter_sys=True)
"""
"""Its arguments: how many entries of `sys.path` come from PYTHONPATH, and the modules. Its standard input is a socket:
it writes `_READY`, and reads a line of JSON. What it has imported is not gone through again by each collection of
garbage, of which pytest asks for two and the interpreter's end for more.
"""


class Note(msgspec.Struct, frozen=True):
    """What the last tests were: the environment's digest, modules of it to import, and whether they had no network."""

    environment: str
    modules: tuple[str, ...]
    offline: bool


@dataclass(frozen=True)
class WarmTests:
    """One interpreter that waits. `taken` are names that a function may not have for modules of its own, or it would
    not get these.
    """

    note: Note
    process: subprocess.Popen[bytes]
    line: socket.socket
    place: Place
    taken: frozenset[str]

    def suits(self, plan: Plan, settings: StepSettings, config: Config) -> bool:
        """Whether tests get from it what they would get from an interpreter of their own."""
        handler, note = plan.request.handler, self.note
        own = {path.name.partition(".")[0] for folder in (plan.template.path, handler) for path in folder.iterdir()}
        return (
            isinstance(plan.language, Python)
            and (settings.enabled, settings.command, settings.memory) == (True, "", config.test_memory)
            and plan.template.test[: len(COMMAND)] == COMMAND
            and (plan.environment, plan.request.offline) == (note.environment, note.offline)
            and not own & self.taken
            and (not note.modules or set(note.modules) <= set(_modules(plan, config)))
        )

    def is_ready(self, children: Children) -> bool:
        """Whether it has imported all; waits for that a while, and ends one that will not."""
        ready = self.process.poll() is None and children.wait_for(self.line.fileno(), _READY_SECONDS)
        if ready and self.line.recv(len(_READY)) == _READY:
            return True
        end(self.process, children.kept)
        return False

    def hand_over(self, program: Program) -> subprocess.Popen[bytes]:
        """Let it run this program, whose command begins with `COMMAND`. Raises OSError when it has ended."""
        variables = {**program.environment, "PWD": str(program.folder)}  # which a shell would add
        job = {
            "environment": variables,
            "folder": str(program.folder),
            "path": [str(program.folder), *variables["PYTHONPATH"].split(os.pathsep)],
            "arguments": ["pytest", *program.command[len(COMMAND) :]],
        }
        self.line.sendall(json.dumps(job).encode() + b"\n")
        self.line.close()
        return self.process


@dataclass(frozen=True)
class Ready:
    """What a builder has before there is a build."""

    staging: Path
    group: ControlGroup | None
    tests: WarmTests


@contextmanager
def getting_ready(config: Config, request: int) -> Iterator[Ready | None]:
    """Until there is something to read from the descriptor `request`. None where that takes long, no note is, or
    something is not as it was then. What is here goes at the end.
    """
    with ExitStack() as held:
        ready = None
        try:
            note, kept = _read_note(config)
            if note is not None and kept > 0:
                ready = _get_ready(note, config, held)
                if not _wait(ready, config, request, kept):
                    ready = None
        except (OSError, subprocess.SubprocessError, StokerError):
            ready = None  # tests start as ever, and say what is wrong
        if ready is None:
            held.close()
        yield ready


def _get_ready(note: Note, config: Config, held: ExitStack) -> Ready:
    """Raises OSError, `StokerError`."""
    adopt_orphans()
    environment = config.data.environment(note.environment) if note.environment else None
    interpreter = prepare_interpreter(config.data.path)
    path = [entry for entry in (environment, interpreter.test_tools) if entry]
    taken = {path.name.partition(".")[0] for folder in path for path in folder.iterdir()} | sys.stdlib_module_names
    staging = held.enter_context(staging_folder(config.data.builds))
    group = held.enter_context(control_group(staging, config.bounds))
    place = held.enter_context(place_for_tests(config, staging / "warm-tests", offline=note.offline))
    if note.offline and place.network is None:
        raise StokerError("the platform may not make a network without a way out")
    place.give_home()
    groups = (config.ids.id_for(f"environment:{note.environment}"),) if config.ids and environment else ()
    program = Program(
        command=(str(interpreter.python), "-S", "-c", _WAITING, str(len(path)), *note.modules),
        folder=place.home,
        environment=place.variables | variables_of_tests(path, interpreter),
        limits=Limits(0, config.test_memory, config.most_processes, config.bounds.disk),
        account=None if place.user is None else Account(place.user, groups),
        temporary=place.home,
        network=place.network,
    )
    ours, its = socket.socketpair()
    held.callback(ours.close)
    held.callback(end, None)
    with its:
        process = start(program, Confinement(group, own_files_of(config, interpreter)), its.fileno())
    held.callback(_close, process)
    return Ready(staging, group, WarmTests(note, process, ours, place, frozenset(taken - {""})))


def _wait(ready: Ready, config: Config, request: int, seconds: float) -> bool:
    """Whether there is a request within that time. Raises `Exceeded` and `FullDisk` like a build."""
    usage = Usage(config.bounds, ready.staging, None, ready.group)
    deadline = time.monotonic() + seconds
    while not select.select([request], [], [], _LOOK_SECONDS)[0]:
        usage.look()
        if time.monotonic() > deadline or ready.tests.process.poll() is not None:
            return False
    return True


def _close(process: subprocess.Popen[bytes]) -> None:
    end(process)
    if process.stdout is not None:
        process.stdout.close()


def remember(plan: Plan, step: TestStep, config: Config, staging: Path) -> None:
    """Leave a note of what these tests wanted, for the next builder that is started ahead; none of other tests."""
    path = config.data.builds / _NOTE
    if not isinstance(plan.language, Python) or step.command[: len(COMMAND)] != COMMAND:
        path.unlink(missing_ok=True)
        return
    note, new = Note(plan.environment, _modules(plan, config), plan.request.offline), staging / _NOTE
    new.write_bytes(msgspec.json.encode(note))
    new.rename(path)


def _modules(plan: Plan, config: Config) -> tuple[str, ...]:
    return modules_ahead(plan.request.handler, config.data.environment(plan.environment)) if plan.environment else ()


def _read_note(config: Config) -> tuple[Note | None, float]:
    """And the seconds that it counts still."""
    path = config.data.builds / _NOTE
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
        return note, min(path.stat().st_mtime - time.time(), 0) + KEPT_SECONDS
    except (OSError, msgspec.MsgspecError):
        return None, 0.0
