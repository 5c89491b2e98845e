"""The programs of other languages: where they are, which version, and how a build runs them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.caches import mark_used
from stoker_builder.child import Account, Limits, Program
from stoker_builder.errors import MissingTool
from stoker_builder.tree import hand_over, remove_tree

if TYPE_CHECKING:
    from stoker_builder.workshop import Workshop

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a tool must be: functions and builds run as other users, who cannot enter a home folder."""

_VERSION_SECONDS = 20
_KEPT_LINES = 5000


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, negative for a signal, and the last lines that it printed."""

    code: int
    lines: tuple[str, ...]


def need(template: str, **packages: str) -> None:
    """Raise `MissingTool` unless all these programs are there: `need("node", node="nodejs", npm="npm")`."""
    for program, package in packages.items():
        if shutil.which(program, path=PATH) is None:
            raise MissingTool(
                f"template {template} needs the program {program}, which is not on this machine: "
                f"install it (Debian: apt install {package})"
            )


@cache
def version(program: str, argument: str = "--version") -> str:
    """What the program says of its version; asked once in a process."""
    found = shutil.which(program, path=PATH) or program
    try:
        done = subprocess.run(
            [found, argument],
            env={"PATH": PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingTool(f"the program {found} does not tell its version: {error}; install it again") from None
    return done.stdout.strip()


def run_as_builder(
    command: list[str], folder: Path, variables: Mapping[str, str], workshop: Workshop, *, quiet: bool = False
) -> Outcome:
    """Run a tool as the id that installs, with the way to a package index. Raises `TimedOut` like the install step."""
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def on_line(line: str) -> None:
        last.append(line.rstrip())
        if not quiet:
            workshop.log(line)

    return Outcome(workshop.children.run(as_builder(command, folder, variables, workshop), on_line), tuple(last))


def as_builder(command: list[str], folder: Path, variables: Mapping[str, str], workshop: Workshop) -> Program:
    config = workshop.config
    home = own_folder(workshop.staging / "home", workshop)  # of this build: what lies there is told to tools
    environment = {
        **config.index_environment,
        "PATH": PATH,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        **variables,
    }
    user = workshop.user_for("builder")
    way = workshop.way_out()
    return Program(
        command,
        folder,
        {**environment, **(way.variables if way else {})},
        limits=Limits(config.install_timeout, 0, workshop.config.most_processes, config.bounds.disk),
        account=None if user is None else Account(user),
        temporary=home,
        network=way.network if way else None,
    )


def own_folder(path: Path, workshop: Workshop) -> Path:
    """The folder, made for the id that installs if it is not there. It must lie where only the platform writes. Raises
    FileExistsError for what is no folder of that id: what it made itself is never handed over.
    """
    user = workshop.user_for("builder")
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not _is_own(path, user):
            raise
    else:
        if user is not None:
            os.chown(path, user, user, follow_symlinks=False)
    return path


def give(folder: Path, workshop: Workshop) -> None:
    """To the id that installs. The last that the platform does there: that id may run for other builds meanwhile."""
    user = workshop.user_for("builder")
    if user is not None:
        hand_over(folder, user)


def cache_folder(name: str, workshop: Workshop) -> Path:
    """A tool's cache, shared by all builds but those with secrets, whose packages are not for others."""
    if workshop.secrets:
        return own_folder(workshop.staging / f"cache-{name}", workshop)
    path = workshop.caches.use(name)
    if os.path.lexists(path) and not _is_own(path, workshop.user_for("builder")):
        remove_tree(path)  # of other ids, or put there when tools still could
    cache = own_folder(path, workshop)
    mark_used(cache)
    return cache


def _is_own(path: Path, user: int | None) -> bool:
    """Whether it is a folder, no link to one, and `user`'s where that is an id."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and user in (None, status.st_uid)
