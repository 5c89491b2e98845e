"""Limits by control groups, where this process may make them; version 2, and version 1 for older hosts.

Where it may not (an ordinary user, a container), who wants limits finds another way: a replica limits itself
(`watchdog/…/confine.py`), a build is watched (`builder/…/usage.py`), and both say so.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger("stoker.cgroups")

_PERIOD = 100_000
_ROOT = Path("/sys/fs/cgroup")
_ORDINARY_SHARES: Final = 1024
_ORDINARY_WEIGHT: Final = 100


@dataclass(frozen=True)
class Limits:
    """Bytes of memory and swap together, cores of CPU, processes and threads in number; 0 means no limit."""

    memory: int = 0
    cores: float = 0.0
    processes: int = 0


@dataclass(frozen=True)
class Cgroups:
    """The folder that holds our groups, by controller: one and the same in version 2, one each in version 1."""

    folders: Mapping[str, Path]
    version: int

    def make(self, id: str, limits: Limits) -> None:
        """A group, with its limits set. Raises OSError."""
        for folder in self._distinct():
            (folder / id).mkdir(exist_ok=True)
        if limits.memory:
            self._limit_memory(id, limits.memory)
        if limits.processes:
            self._file("pids", id, "pids.max").write_text(str(limits.processes))
        if limits.cores:
            quota = max(1000, int(limits.cores * _PERIOD))
            if self.version == 2:
                self._file("cpu", id, "cpu.max").write_text(f"{quota} {_PERIOD}")
            else:
                self._file("cpu", id, "cpu.cfs_period_us").write_text(str(_PERIOD))
                self._file("cpu", id, "cpu.cfs_quota_us").write_text(str(quota))

    def add(self, id: str, pid: int) -> None:
        for folder in self._distinct():
            (folder / id / "cgroup.procs").write_text(str(pid))

    def kill(self, id: str) -> None:
        """Every process of the group, if it is there; who forks meanwhile may escape."""
        try:
            pids = [int(pid) for pid in (self._distinct()[0] / id / "cgroup.procs").read_text().split()]
        except OSError:
            return
        for pid in filter(None, pids):  # 0 is one of another namespace
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def ran_out_of_memory(self, id: str) -> bool:
        """Whether the kernel has killed something in the group because of its memory limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self._counted("memory", id, name, "oom_kill")

    def ran_out_of_processes(self, id: str) -> bool:
        """Whether the kernel has refused it a process or thread."""
        return self._counted("pids", id, "pids.events", "max")

    def remove(self, id: str) -> None:
        """Best effort: a group whose last process is still ending stays until the next start's `clear`."""
        for folder in self._distinct():
            try:
                (folder / id).rmdir()
            except OSError:
                continue

    def ids(self) -> list[str]:
        """The groups that are there."""
        return sorted({group.name for folder in self._distinct() for group in folder.iterdir() if group.is_dir()})

    def clear(self) -> None:
        """Remove every group without a process."""
        for id in self.ids():
            self.remove(id)

    def weigh(self, share: float) -> None:
        """All our groups together get so much of the processor beside one process of others, where all want it."""
        name, ordinary = ("cpu.weight", _ORDINARY_WEIGHT) if self.version == 2 else ("cpu.shares", _ORDINARY_SHARES)
        (self.folders["cpu"] / name).write_text(str(max(2, int(ordinary * share))))

    def _limit_memory(self, id: str, limit: int) -> None:
        """With swap, where the kernel counts that."""
        if self.version == 2:
            self._file("memory", id, "memory.max").write_text(str(limit))
            swap = self._file("memory", id, "memory.swap.max")
            if swap.exists():
                swap.write_text("0")
            return
        both = self._file("memory", id, "memory.memsw.limit_in_bytes")
        if both.exists():
            both.write_text("-1")  # never less than that of memory alone
        self._file("memory", id, "memory.limit_in_bytes").write_text(str(limit))
        if both.exists():
            both.write_text(str(limit))

    def _file(self, controller: str, id: str, name: str) -> Path:
        return self.folders[controller] / id / name

    def _distinct(self) -> list[Path]:
        return list(dict.fromkeys(self.folders.values()))

    def _counted(self, controller: str, id: str, name: str, event: str) -> bool:
        try:
            lines = self._file(controller, id, name).read_text().splitlines()
        except (KeyError, OSError):
            return False
        return any(line.startswith(f"{event} ") and line != f"{event} 0" for line in lines)


def find_cgroups(path: str, controllers: tuple[str, ...] = ("memory", "cpu"), root: Path = _ROOT) -> Cgroups | None:
    """Folders `path` below the root that this process could make and write, or None where one controller is missing."""
    try:
        if (root / "cgroup.controllers").exists():
            return _version_2(root, path, controllers)
        if all((root / controller / "cgroup.procs").exists() for controller in controllers):
            return _version_1(root, path, controllers)
    except OSError as error:
        log.debug("no control groups: %s", error)
    return None


def _version_2(root: Path, path: str, controllers: tuple[str, ...]) -> Cgroups | None:
    if not set(controllers) <= set((root / "cgroup.controllers").read_text().split()):
        return None
    wanted = " ".join(f"+{controller}" for controller in controllers)
    group = root
    (group / "cgroup.subtree_control").write_text(wanted)
    for part in Path(path).parts:
        group = group / part
        group.mkdir(exist_ok=True)
        (group / "cgroup.subtree_control").write_text(wanted)
    return Cgroups(dict.fromkeys(controllers, group), 2)


def _version_1(root: Path, path: str, controllers: tuple[str, ...]) -> Cgroups | None:
    folders = {controller: root / controller / path for controller in controllers}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder / "cgroup.procs", os.W_OK):
            return None
    return Cgroups(folders, 1)
