"""The package caches that builds share: one folder for each tool, bounded together.

Only a tool knows how its files belong together, so what is removed is a tool's whole cache, that of the tool which was
used longest ago first. The next build fetches again what it needs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stoker_builder.bounds import size_text
from stoker_builder.tree import remove_tree
from stoker_builder.usage import used_below


def folder_of(builds: Path) -> Path:
    return builds / "cache"


def mark_used(cache: Path) -> None:
    """A tool of this build works there."""
    os.utime(cache)


@contextmanager
def shared_caches(builds: Path, most: int, log: Callable[[str], None]) -> Iterator[None]:
    """For one build. At its end the caches are cut to `most` bytes, unless it used none or another build goes on.

    The lock is on the folder `builds` itself.
    """
    descriptor = os.open(builds, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        before = _newest(folder_of(builds))
        yield
        if _newest(folder_of(builds)) > before and _is_last(descriptor):
            trim(folder_of(builds), most, log)
    finally:
        os.close(descriptor)


def trim(folder: Path, most: int, log: Callable[[str], None]) -> None:
    """Remove caches until all together have at most `most` bytes."""
    caches = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    sizes = {path: used_below(path).disk for path in caches}
    for path in caches:
        if sum(sizes.values()) <= most:
            return
        log(f"packages: the cache {path.name} is removed, because all have more than {size_text(most)} (--build-cache)")
        remove_tree(path)
        del sizes[path]


def _is_last(descriptor: int) -> bool:
    """Whether no other build goes on; none begins from now on until we are done."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _newest(folder: Path) -> int:
    """When one of them was used last, in nanoseconds."""
    return max((path.stat().st_mtime_ns for path in folder.iterdir()), default=0) if folder.is_dir() else 0
