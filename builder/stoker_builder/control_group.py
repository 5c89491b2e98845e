"""A build's control group: the kernel bounds its memory and processes together, and its part of the processor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.bounds import Bounds
from stoker_sdk.cgroups import Cgroups, Limits, find_cgroups

_CONTROLLERS: Final = ("memory", "cpu", "pids")
_SHARE: Final = 0.3
"""All builds of a platform together get so much of what one busy function does, where all want the same core."""
_TRIES: Final = 3


@dataclass(frozen=True)
class ControlGroup:
    """One build's."""

    cgroups: Cgroups
    id: str

    def join(self) -> None:
        """This process and what it starts. Needs root."""
        self.cgroups.add(self.id, os.getpid())

    def ran_out_of_memory(self) -> bool:
        return self.cgroups.ran_out_of_memory(self.id)

    def ran_out_of_processes(self) -> bool:
        return self.cgroups.ran_out_of_processes(self.id)


@contextmanager
def control_group(staging: Path, bounds: Bounds) -> Iterator[ControlGroup | None]:
    """A group for the build with this folder, gone at its end; None where this process may make none."""
    group = _make(staging, bounds) if os.geteuid() == 0 else None
    try:
        yield group
    finally:
        if group is not None:
            group.cgroups.remove(group.id)
            group.cgroups.remove("")  # where it was the last


def parent_of_groups(builds: Path) -> str:
    """The control group that holds those of all builds with folders below `builds`."""
    return f"stoker-builds-{hashlib.sha256(os.fsencode(builds)).hexdigest()[:12]}"


def _make(staging: Path, bounds: Bounds) -> ControlGroup | None:
    for _ in range(_TRIES):
        cgroups = find_cgroups(parent_of_groups(staging.parent), _CONTROLLERS)
        if cgroups is None:
            return None
        try:
            _remove_dead(cgroups, staging.parent)
            cgroups.weigh(_SHARE)
            cgroups.make(staging.name, Limits(bounds.memory, processes=bounds.processes))
            return ControlGroup(cgroups, staging.name)
        except FileNotFoundError:
            continue  # another build has just ended, and removed the folder that holds all
        except OSError:
            return None
    return None


def _remove_dead(cgroups: Cgroups, builds: Path) -> None:
    """Those of builds that were killed, with what these left running. A build's folder is made before its group, and
    removed after it.
    """
    for id in cgroups.ids():
        if not (builds / id).is_dir():
            cgroups.kill(id)
            cgroups.remove(id)
