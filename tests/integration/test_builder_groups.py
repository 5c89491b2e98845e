"""Control groups of builds: what they bound, and what becomes of those whose build was killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_builder.bounds import Bounds
from stoker_builder.control_group import control_group, parent_of_groups
from stoker_sdk.cgroups import Cgroups, Limits, find_cgroups

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs control groups")]
MIB = 1 << 20


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Cgroups]:
    """Those of the builds with folders below `tmp_path`."""
    found = find_cgroups(parent_of_groups(tmp_path), ("memory", "cpu", "pids"))
    if found is None:
        pytest.skip("this machine's control groups are not ours to make")
    yield found
    found.clear()
    found.remove("")


def test_swap_counts_as_memory(groups: Cgroups) -> None:
    folder = groups.folders["memory"] / "one"
    for memory in (64 * MIB, 128 * MIB, 32 * MIB):
        groups.make("one", Limits(memory=memory))
        name, limit = ("memory.swap.max", 0) if groups.version == 2 else ("memory.memsw.limit_in_bytes", memory)
        if not (folder / name).exists():
            pytest.skip("this kernel does not count swap")
        assert int((folder / name).read_text()) == limit


def test_what_a_dead_build_left_running_ends_before_the_next_one_begins(groups: Cgroups, tmp_path: Path) -> None:
    groups.make("run-dead", Limits())
    (tmp_path / "run-alive").mkdir()
    groups.make("run-alive", Limits())
    with subprocess.Popen(["sleep", "600"]) as left, subprocess.Popen(["sleep", "600"]) as other:
        groups.add("run-dead", left.pid)
        groups.add("run-alive", other.pid)
        try:
            (tmp_path / "run-next").mkdir()
            with control_group(tmp_path / "run-next", Bounds()) as group:
                assert group is not None
                assert left.wait(10) == -9
                assert other.poll() is None
        finally:
            left.kill()
            other.kill()
