"""Builds that run wild: each is ended with the limit's name, leaves nothing behind, and the next one works."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder_process import Outcome, build, request_tar

from stoker_builder.control_group import parent_of_groups
from stoker_builder.own_files import may_have_own_files
from stoker_builder.tree import remove_tree
from stoker_builder.usage import MAX_DEPTH
from stoker_sdk.data_dir import DataDir
from stoker_sdk.ids import UserIds, first_id_of

ROOT = os.geteuid() == 0
HANDLER = "def handle(req):\n    return req\n"
MIB = 1 << 20
as_root = [pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs user ids and mounts")]


@pytest.fixture
def data() -> Iterator[DataDir]:
    """In a folder that every user may enter, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-bounds-", dir="/tmp"))
    folder.chmod(0o711)
    yield DataDir(folder)
    remove_tree(folder)


def run_test(data: DataDir, test: str, *flags: str, **args: str) -> Outcome:
    """Build a function with this test."""
    files = {"handler.py": HANDLER, "handler_test.py": test}
    return build(data.path, request_tar(files, args=args), {}, flags)


def assert_ended(outcome: Outcome, reason: str, data: DataDir) -> None:
    """With this reason, and nothing is left: no folder, process or artefact. The next build works."""
    assert (outcome.code, outcome.result["code"]) == (1, "exceeded-limit"), outcome
    assert reason in outcome.error, outcome.error
    assert_nothing_is_left(data)
    assert run_test(data, "def test_it():\n    assert True\n").code == 0


def assert_nothing_is_left(data: DataDir) -> None:
    assert not list(data.builds.glob("run-*"))
    assert not list(data.artefacts.glob("*")) if data.artefacts.is_dir() else True
    root, name = Path("/sys/fs/cgroup"), parent_of_groups(data.builds)
    assert not [*root.glob(name), *root.glob(f"*/{name}")]  # no deeper: there groups of others come and go
    if ROOT:
        ids = UserIds(data.ids, first_id_of(data.path))
        users = {ids.id_for("builder"), ids.id_for("tests:0")}
        assert not [pid for pid in Path("/proc").glob("[0-9]*") if owner(pid) in users]


def owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


WRITES_MUCH = """
def test_it():
    block = b"x" * (1 << 20)
    with open({path!r}, "wb") as file:
        while True:
            file.write(block)
            file.flush()
"""


@pytest.mark.parametrize(
    "path",
    ["big", "../../home/big", pytest.param("/tmp/big", marks=as_root), pytest.param("/dev/shm/big", marks=as_root)],
)
def test_a_build_that_fills_the_disk(data: DataDir, path: str) -> None:
    outcome = run_test(data, WRITES_MUCH.format(path=path), "--disk", str(200 * MIB))
    assert_ended(outcome, "the build wrote more than 200 MiB: ", data)
    assert "raise --build-disk" in outcome.error


def test_a_build_that_fills_the_disk_with_small_files(data: DataDir) -> None:
    test = """
import itertools
import pathlib


def test_it():
    for number in itertools.count():
        pathlib.Path(f"small-{number}").touch()
"""
    assert_ended(run_test(data, test, "--files", "2000"), "the build made more than 2000 files: ", data)


def test_files_whose_names_are_gone_count_too(data: DataDir) -> None:
    test = """
import os


def test_it():
    block, files = b"x" * (1 << 20), []
    while True:
        files.append(open("unseen", "wb"))
        os.unlink("unseen")
        for _ in range(40):
            files[-1].write(block)
"""
    assert_ended(run_test(data, test, "--disk", str(200 * MIB)), "the build wrote more than 200 MiB: ", data)


def test_folders_in_folders_without_end(data: DataDir) -> None:
    test = """
import os


def test_it():
    for _ in range(3000):
        os.mkdir("x")
        os.chdir("x")
"""
    assert_ended(run_test(data, test), f"folders are nested more than {MAX_DEPTH} deep", data)


FORKS = """
import os
import signal


def test_it():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
                signal.pause()
        except OSError:
            pass
"""


def test_a_build_that_forks_without_end(data: DataDir) -> None:
    began = time.monotonic()
    outcome = run_test(data, FORKS, "--processes", "100")
    assert_ended(outcome, "the build started more than 100 processes and threads: ", data)
    assert time.monotonic() - began < 60


def test_processes_that_replace_each_other_end_too(data: DataDir) -> None:
    test = """
import os
import time


def test_it():
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            while True:  # a chain: each does a little, starts the next and ends
                time.sleep(0.05)
                if os.fork():
                    os._exit(0)
    time.sleep(3)
"""
    outcome = run_test(data, test)
    assert outcome.code == 0, outcome
    remove_tree(data.artefacts)
    assert_nothing_is_left(data)


TRACES = """
import ctypes
import os
import signal

SEIZE = 0x4206


def trace(other):
    assert ctypes.CDLL(None).ptrace(SEIZE, other, None, None) == 0
    os.write(ready, b"x")
    signal.pause()


def test_it():
    global ready
    told, ready = os.pipe()
{start}
    assert os.read(told, 1) == b"x"
"""
TRACES_THE_PROGRAM = """
    if os.fork() == 0:
        os.setsid()
        trace(os.getppid())
"""
TRACE_EACH_OTHER = """
    if os.fork() == 0:
        os.setsid()
        other = os.fork()
        if other == 0:
            os.setsid()
            trace(os.getppid())
        assert os.read(told, 1) == b"x"
        trace(other)
"""


@pytest.mark.parametrize("start", [TRACES_THE_PROGRAM, TRACE_EACH_OTHER], ids=["the program", "each other"])
def test_processes_that_trace_others_end_too(data: DataDir, start: str) -> None:
    """Who is traced is its tracer's to reap, and no longer its parent's."""
    files = {"handler.py": HANDLER, "handler_test.py": TRACES.format(start=start)}
    outcome = build(data.path, request_tar(files), seconds=60)
    assert outcome.code == 0, outcome
    remove_tree(data.artefacts)
    assert_nothing_is_left(data)


EATS = """
import os


def test_it():
    held = []
    for _ in range({processes}):
        if {processes} == 1 or os.fork() == 0:
            while True:
                held.append(bytearray(os.urandom(1 << 20)))
                if {processes} > 1 and len(held) == 60:
                    import signal

                    signal.pause()
    while True:
        os.wait()
"""


@pytest.mark.parametrize("processes", [1, 6])
def test_memory_counts_for_all_processes_of_a_build_together(data: DataDir, processes: int) -> None:
    outcome = run_test(data, EATS.format(processes=processes), "--memory", str(256 * MIB))
    assert_ended(outcome, "the build used more than 256 MiB of memory: ", data)


@pytest.mark.parametrize("test", [FORKS, EATS.format(processes=6)], ids=["processes", "memory"])
def test_without_control_groups_the_same_is_counted_by_ourselves(
    data: DataDir, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a mount namespace without any, as in a container."""
    if not ROOT:
        pytest.skip("that is what the tests above have shown")
    monkeypatch.setattr(
        "builder_process.COMMAND",
        ("unshare", "--mount", "sh", "-c", 'umount -l /sys/fs/cgroup/*; umount -l /sys/fs/cgroup; exec "$@"', "sh"),
    )
    outcome = run_test(data, test, "--processes", "100", "--memory", str(256 * MIB))
    reason = "the build started more than 100" if test is FORKS else "the build used more than 256 MiB of memory"
    assert_ended(outcome, reason, data)


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs mounts")
def test_a_program_writes_nowhere_but_into_its_own_folders(data: DataDir) -> None:
    assert may_have_own_files()
    Path("/tmp/stoker-bounds-of-others").write_text("x")
    test = f"""
import os
import pathlib

import pytest


def test_it():
    pathlib.Path("/tmp/mine").write_text("x")
    pathlib.Path("/var/tmp/mine").exists()
    assert not os.path.exists("/tmp/stoker-bounds-of-others")
    for place in ("/var/crash", "/run/lock", "/dev/mqueue", "/etc", "/proc/self"):
        if os.path.isdir(place):
            with pytest.raises(OSError):
                pathlib.Path(place, "mine").write_text("x")
    pathlib.Path("/dev/null").write_text("x")
    assert os.getcwd().startswith({str(data.builds)!r})
    import multiprocessing

    multiprocessing.Lock()
"""
    try:
        outcome = run_test(data, test)
        assert outcome.code == 0, outcome
        assert not Path("/tmp/mine").exists()
    finally:
        Path("/tmp/stoker-bounds-of-others").unlink()


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs namespaces")
def test_shared_memory_of_a_build_goes_with_it(data: DataDir) -> None:
    test = """
import ctypes

CREATE = 0o1666


def test_it():
    assert ctypes.CDLL(None).shmget(0x5703E, 1 << 20, CREATE) >= 0
"""
    assert run_test(data, test).code == 0
    left = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    assert not [segment for segment in left if int(segment[0]) == 0x5703E], left


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs user ids")
def test_the_function_as_it_will_run_is_for_nobody_yet(data: DataDir) -> None:
    """Its tests, and others' programs at the same time, read copies of their own."""
    test = """
import os

import pytest


def test_it():
    assert os.listdir("../../../tests/function")
    with pytest.raises(PermissionError):
        os.listdir("../../../function")
"""
    outcome = run_test(data, test)
    assert outcome.code == 0, outcome
