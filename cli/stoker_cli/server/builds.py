"""The builder as control starts it: its command, with what a build may use."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from stoker_builder.bounds import Bounds
from stoker_sdk.data_dir import DataDir


@dataclass(frozen=True)
class BuildOptions:
    """The flags of `stoker serve` about builds, checked. `seconds` is for a whole build, `reach` the addresses of this
    machine (`HOST:PORT`) that installers of pushed functions may reach.
    """

    bounds: Bounds = field(default_factory=Bounds)
    seconds: float = 1800.0
    ahead: bool = False
    reach: tuple[str, ...] = ()


def build_command(options: BuildOptions, data: DataDir, first_id: int, id_count: int) -> list[str]:
    """`first_id` is 0 where builds run as our own user."""
    command = [sys.executable, "-P", "-m", "stoker_builder", "--data-dir", str(data.path)]
    if first_id:
        command += ["--first-id", str(first_id), "--id-count", str(id_count)]
    bounds = options.bounds
    command += ["--disk", str(bounds.disk), "--files", str(bounds.files), "--memory", str(bounds.memory)]
    command += ["--processes", str(bounds.processes), "--cache", str(bounds.cache)]
    return [*command, *(word for address in options.reach for word in ("--reach", address))]
