"""How much of the machine a build has used so far, looked at several times a second while its programs run.

The kernel bounds memory and processes where the platform may make control groups (`control_group.py`), and where a
build may write (`own_files.py`). How much it writes no kernel bounds by folder without a quota on the file system,
so its folders are summed up. A sum over many files costs time; so it is made when the disk's free space has fallen by
as much as the build had left, and otherwise as often as it may cost a tenth of the time.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.bounds import Bounds, size_text
from stoker_builder.control_group import ControlGroup
from stoker_builder.descendants import Tasks, open_without_name, tasks_below
from stoker_builder.errors import Exceeded, FullDisk

KEPT_FREE: Final = 256 << 20
"""Bytes of the disk that builds leave to functions, calls and logs."""
MAX_DEPTH: Final = 250
"""Of folders in folders; nobody nests more, and what walks through a tree needs room for each."""

_LOOK_SECONDS: Final = 0.1
_TASKS_SECONDS: Final = 0.5
_LEAST_PAUSE: Final = 1.0
_PAUSE_PER_COST: Final = 10.0
_CLOCK_STEP: Final = 0.1
"""The kernel's clock of files is a moment behind."""


@dataclass(frozen=True)
class Used:
    """Bytes of the disk, and files with folders and links in number."""

    disk: int = 0
    files: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(self.disk + other.disk, self.files + other.files)


class Usage:
    """Of one build, from now on: all below `staging`, and what is new below `cache`, if it uses one. `group` is its
    control group; where there is none, its processes are counted here.
    """

    def __init__(self, bounds: Bounds, staging: Path, cache: Path | None, group: ControlGroup | None) -> None:
        self._bounds = bounds
        self._staging = staging
        self._cache = cache
        self._group = group
        self._began = time.time() - _CLOCK_STEP
        self._used = Used()
        self._free = room(staging)
        self._next_look = self._next_tasks = self._next_sum = 0.0

    def look(self, *, ended: bool = False) -> None:
        """Raises `Exceeded`, and `FullDisk` when there is hardly any room, whoever took it. May be called often.

        When a program has `ended` its folders are summed up whatever the time is. What it added to the caches then is
        seen with the next one.
        """
        if ended:
            if self._group is not None:
                self._check_group(self._group)
            self._check(used_below(self._staging))
            return
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        if self._group is not None:
            self._check_group(self._group)
        elif now >= self._next_tasks:
            self._check_tasks(tasks_below(os.getpid()))
            self._next_tasks = time.monotonic() + _TASKS_SECONDS
        free = room(self._staging)
        taken = Used(self._free.disk - free.disk, self._free.files - free.files)
        if now >= self._next_sum or self._is_more(self._used + taken):
            self._sum()
        if free.disk < KEPT_FREE:
            raise FullDisk(
                f"the platform's disk is full: {size_text(free.disk)} are left, and builds leave "
                f"{size_text(KEPT_FREE)} to functions and calls: make room"
            )

    def _check_group(self, group: ControlGroup) -> None:
        if group.ran_out_of_memory():
            raise _too_much_memory(self._bounds)
        if group.ran_out_of_processes():
            raise _too_many_processes(self._bounds)

    def _check_tasks(self, tasks: Tasks) -> None:
        if tasks.count > self._bounds.processes:
            raise _too_many_processes(self._bounds)
        # Resident memory counts what several share for each; only beyond the limit it is worth to ask exactly.
        if tasks.resident > self._bounds.memory and tasks.memory() > self._bounds.memory:
            raise _too_much_memory(self._bounds)

    def _sum(self) -> None:
        began = time.monotonic()
        free = room(self._staging)
        used = used_below(self._staging)
        if self._cache is not None:
            used += used_below(self._cache, self._began)
        used += Used(open_without_name(tasks_below(os.getpid()).pids, self._staging.stat().st_dev))
        self._used, self._free = used, free
        ended = time.monotonic()
        self._next_sum = ended + max(_LEAST_PAUSE, (ended - began) * _PAUSE_PER_COST)
        self._check(used)

    def _is_more(self, used: Used) -> bool:
        return used.disk > self._bounds.disk or used.files > self._bounds.files

    def _check(self, used: Used) -> None:
        if used.disk > self._bounds.disk:
            raise Exceeded(
                f"the build wrote more than {size_text(self._bounds.disk)}: let it write less, or raise --build-disk"
            )
        if used.files > self._bounds.files:
            raise Exceeded(
                f"the build made more than {self._bounds.files} files: let it make fewer, or raise --build-files"
            )


def used_below(folder: Path, since: float = 0.0) -> Used:
    """What lies below `folder`; with `since` (Unix seconds) only what was made or changed from then on.

    Raises `Exceeded` for such folders nested deeper than `MAX_DEPTH`. What vanishes meanwhile does not count.
    """
    disk = files = 0
    linked: set[tuple[int, int]] = set()
    for status, depth in _statuses(folder):
        if status.st_ctime < since:
            continue
        if depth > MAX_DEPTH and stat.S_ISDIR(status.st_mode):
            raise Exceeded(f"folders are nested more than {MAX_DEPTH} deep: make fewer levels")
        files += 1
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in linked:
                continue
            linked.add((status.st_dev, status.st_ino))
        disk += status.st_blocks * 512
    return Used(disk, files)


def _statuses(folder: Path) -> Iterator[tuple[os.stat_result, int]]:
    """All that lies below, with its depth; what is in folders deeper than `MAX_DEPTH` is left out."""
    waiting = [(str(folder), 1)]
    while waiting:
        path, depth = waiting.pop()
        try:
            entries = os.scandir(path)
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                yield status, depth
                if stat.S_ISDIR(status.st_mode) and depth <= MAX_DEPTH:
                    waiting.append((entry.path, depth + 1))


def room(folder: Path) -> Used:
    """What is free for others than root, and how many more files the file system takes (0 where it has no limit)."""
    status = os.statvfs(folder)
    return Used(status.f_bavail * status.f_frsize, status.f_favail)


def _too_much_memory(bounds: Bounds) -> Exceeded:
    return Exceeded(
        f"the build used more than {size_text(bounds.memory)} of memory: let it use less, or raise --build-memory"
    )


def _too_many_processes(bounds: Bounds) -> Exceeded:
    return Exceeded(
        f"the build started more than {bounds.processes} processes and threads: let it start fewer, or raise "
        "--build-processes"
    )
