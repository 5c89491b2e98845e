"""Starts programs of a function: found once, started by `posix_spawn`, which does not copy this process's memory.

A program leads a process group of its own, so that all it starts can be ended with it. Nothing is ever interpreted by a
shell. It gets descriptors 0, 1 and 2; everything else of this process is closed on exec.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence

from stoker_watchdog.native import MissingProgram, missing_program

_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""Signals that this process ignores or handles, and a program must meet as it would from a shell."""


class TooLarge(Exception):
    """The environment, with the call's headers in it, is larger than the kernel passes to a program."""


class Program:
    """A command that was found. `environment` is the start of what its processes get."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Raises `MissingProgram`."""
        self.name = command[0]
        self.environment = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        self._path = find_program(command[0], environment.get("PATH", os.defpath))
        self._arguments = [os.fsencode(argument) for argument in command]

    def __repr__(self) -> str:
        return f"<Program {self.name}>"

    def start(self, stdin: int, stdout: int, stderr: int, environment: Mapping[bytes, bytes]) -> int:
        """Start it with these descriptors; returns the pid, which is its process group too.

        Raises `MissingProgram`, `TooLarge`, or OSError when the machine has no room for one more process.
        """
        try:
            return os.posix_spawn(
                self._path,
                self._arguments,
                environment,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, stdin, 0),
                    (os.POSIX_SPAWN_DUP2, stdout, 1),
                    (os.POSIX_SPAWN_DUP2, stderr, 2),
                ),
                setpgroup=0,
                setsigmask=(),
                setsigdef=_DEFAULTS,
            )
        except OSError as error:
            raise self._explain(error) from None

    def _explain(self, error: OSError) -> Exception:
        if error.errno == errno.E2BIG:
            return TooLarge(f"the request's headers do not fit into the environment of {self.name!r}: send less")
        if error.errno == errno.ENOENT:
            return missing_program(self.name)
        if error.errno in (errno.EACCES, errno.ENOEXEC):
            return MissingProgram(f"the program {self.name!r} cannot be started: {error.strerror}; {_HINT}")
        return error


_HINT = "a script needs a first line such as #!/bin/sh, and the right to be executed"


def find_program(name: str, path: str) -> str:
    """The file of a program, searched as a shell would. Raises `MissingProgram`."""
    if "\0" in name:
        raise missing_program(name)
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(os.pathsep)]
    found = [one for one in candidates if os.path.isfile(one)]
    for one in found:
        if os.access(one, os.X_OK):
            return one
    if found:
        raise MissingProgram(f"the program {name!r} cannot be started: it is not executable (chmod +x)")
    raise missing_program(name)
