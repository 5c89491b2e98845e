"""Memory and CPU limits by control groups, where this process may make them; version 2, and version 1 for older hosts.

Where it may not (an ordinary user, a container), the replica limits itself instead (`watchdog/…/confine.py`), and
`describe` says which of the two holds.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("stoker.cgroups")

_PERIOD = 100_000
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """Bytes of memory and cores of CPU; 0 means no limit."""

    memory: int = 0
    cores: float = 0.0


@dataclass(frozen=True)
class Cgroups:
    """The folders that hold our groups: one for both controllers (version 2), or one each (version 1)."""

    memory: Path
    cpu: Path
    version: int

    def make(self, id: str, limits: Limits) -> None:
        """A group for a replica, with its limits set. Raises OSError."""
        for folder in {self.memory, self.cpu}:
            (folder / id).mkdir(exist_ok=True)
        if limits.memory:
            name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
            (self.memory / id / name).write_text(str(limits.memory))
        if limits.cores:
            quota = max(1000, int(limits.cores * _PERIOD))
            if self.version == 2:
                (self.cpu / id / "cpu.max").write_text(f"{quota} {_PERIOD}")
            else:
                (self.cpu / id / "cpu.cfs_period_us").write_text(str(_PERIOD))
                (self.cpu / id / "cpu.cfs_quota_us").write_text(str(quota))

    def add(self, id: str, pid: int) -> None:
        for folder in {self.memory, self.cpu}:
            (folder / id / "cgroup.procs").write_text(str(pid))

    def ran_out_of_memory(self, id: str) -> bool:
        """Whether the kernel has killed something in the group because of its memory limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            lines = (self.memory / id / name).read_text().splitlines()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)

    def remove(self, id: str) -> None:
        """Best effort: a group whose last process is still ending stays until the next start's `clear`."""
        for folder in {self.memory, self.cpu}:
            try:
                (folder / id).rmdir()
            except OSError:
                continue

    def clear(self) -> None:
        for folder in {self.memory, self.cpu}:
            for group in folder.iterdir():
                if group.is_dir():
                    self.remove(group.name)


def find_cgroups(name: str, root: Path = _ROOT) -> Cgroups | None:
    """Folders called `name` that this process could make and write, or None."""
    try:
        if (root / "cgroup.controllers").exists():
            return _version_2(root, name)
        if (root / "memory" / "cgroup.procs").exists() and (root / "cpu" / "cgroup.procs").exists():
            return _version_1(root, name)
    except OSError as error:
        log.debug("no control groups: %s", error)
    return None


def _version_2(root: Path, name: str) -> Cgroups | None:
    controllers = (root / "cgroup.controllers").read_text().split()
    if not {"memory", "cpu"} <= set(controllers):
        return None
    parent = root / "stoker"
    parent.mkdir(exist_ok=True)
    for folder in (root, parent):
        (folder / "cgroup.subtree_control").write_text("+memory +cpu")
    group = parent / name
    group.mkdir(exist_ok=True)
    (group / "cgroup.subtree_control").write_text("+memory +cpu")
    return Cgroups(group, group, 2)


def _version_1(root: Path, name: str) -> Cgroups | None:
    folders = [root / controller / "stoker" / name for controller in ("memory", "cpu")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder / "cgroup.procs", os.W_OK):
            return None
    return Cgroups(folders[0], folders[1], 1)
