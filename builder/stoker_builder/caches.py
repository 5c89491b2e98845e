"""The package caches that builds share: one folder for each tool, bounded together.

Only a tool knows how its files belong together, so what is removed is a tool's whole cache, that of the tool which was
used longest ago first. The next build fetches again what it needs.
"""

from __future__ import annotations

import fcntl
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.bounds import size_text
from stoker_builder.child import end_all_of
from stoker_builder.errors import Exceeded
from stoker_builder.tree import remove_tree
from stoker_builder.usage import KEPT_FREE, room, used_below


def folder_of(builds: Path) -> Path:
    return builds / "cache"


@dataclass
class Caches:
    """Of one build. The folder of all is the platform's own: no tool can put something else in a cache's place."""

    folder: Path
    used: bool = False

    def use(self, name: str) -> Path:
        """Where the cache of a tool lies, that works there from now on; it may have to be made."""
        self.folder.mkdir(mode=0o711, exist_ok=True)
        if self.folder.lstat().st_uid != os.geteuid():  # as earlier versions made it
            os.chown(self.folder, os.geteuid(), os.getegid(), follow_symlinks=False)
        self.folder.chmod(0o711)
        self.used = True
        return self.folder / name


def mark_used(cache: Path) -> None:
    """A tool of this build works there."""
    os.utime(cache, follow_symlinks=False)


@contextmanager
def shared_caches(builds: Path, most: int, log: Callable[[str], None], user: int | None = None) -> Iterator[Caches]:
    """For one build. At its end, however that comes, the caches are cut to `most` bytes, unless it used none or another
    build goes on. Before it too, where there is hardly room: a build that was killed has cut nothing. What such a build
    left running of the id that installs, `user`, is ended first.

    The lock is on the folder `builds` itself.
    """
    caches = Caches(folder_of(builds))
    descriptor = os.open(builds, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _is_last(descriptor):
            if user is not None:
                end_all_of(user)
            if room(builds).disk < KEPT_FREE:
                trim(caches.folder, most, log)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            yield caches
        finally:
            if caches.used and _is_last(descriptor):
                trim(caches.folder, most, log)
    finally:
        os.close(descriptor)


def trim(folder: Path, most: int, log: Callable[[str], None]) -> None:
    """Remove caches until all together have at most `most` bytes, and what is no cache."""
    if not folder.is_dir():
        return
    now = time.time()
    last_used: dict[Path, float] = {}
    for path in folder.iterdir():
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            # The owner may have written any time: one that has not come yet counts as none.
            last_used[path] = status.st_mtime if status.st_mtime <= now else 0
        else:
            path.unlink()
    sizes = {path: _size(path) for path in sorted(last_used, key=last_used.__getitem__)}
    for path in list(sizes):
        if sum(sizes.values()) <= most:
            return
        log(f"packages: the cache {path.name} is removed, because all have more than {size_text(most)} (--build-cache)")
        remove_tree(path)
        del sizes[path]


def _size(cache: Path) -> float:
    """In bytes; without end where folders are nested so deep that nobody can tell."""
    try:
        return used_below(cache).disk
    except Exceeded:
        return math.inf


def _is_last(descriptor: int) -> bool:
    """Whether no other build goes on; none begins from now on until we are done."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
