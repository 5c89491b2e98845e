"""What runs below a process, read from /proc: for builds whose processes no control group counts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Tasks:
    """Processes; `count` has their threads in it, `resident` is in bytes, and counts what several share for each."""

    pids: tuple[int, ...]
    count: int
    resident: int

    def memory(self) -> int:
        """In bytes, where what several share counts once. Slower."""
        return sum(_proportional(pid) for pid in self.pids)


def tasks_below(ancestor: int) -> Tasks:
    """All descendants of a process but itself."""
    found = dict(_processes())
    children: dict[int, list[int]] = {}
    for pid, (parent, _threads, _resident) in found.items():
        children.setdefault(parent, []).append(pid)
    pids: list[int] = []
    waiting = [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        pids += below
        waiting += below
    return Tasks(tuple(pids), sum(found[pid][1] for pid in pids), sum(found[pid][2] for pid in pids))


def open_without_name(pids: Iterable[int], device: int) -> int:
    """Bytes of the files on this device that processes hold open, and whose names are gone: no folder shows them."""
    held: dict[int, int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                status = Path(f"/proc/{pid}/fd/{name}").stat()
            except OSError:
                continue
            if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                held[status.st_ino] = status.st_blocks * 512
    return sum(held.values())


def _processes() -> Iterable[tuple[int, tuple[int, int, int]]]:
    """Pid, and parent, threads, resident bytes (proc(5), `stat`: fields 4, 20 and 24)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path("/proc", name, "stat").read_text(errors="replace")
            except OSError:
                continue
            fields = text[text.rfind(")") + 2 :].split()  # the name before it may hold anything
            yield int(name), (int(fields[1]), int(fields[17]), int(fields[21]) * _PAGE)


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
