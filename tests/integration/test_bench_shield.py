"""What `bench/shield.py` does to the kernel's threads, and that it undoes it."""

import os
import time
from contextlib import suppress

import psutil
import pytest

from bench.processes import TEST_CORE, wait_until
from bench.shield import Shield
from bench.steady import Call

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="moves the kernel's threads"),
    pytest.mark.skipif(not psutil.pid_exists(2), reason="the kernel's threads cannot be seen"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core"),
]


def test_the_kernels_threads_leave_the_core_and_may_come_back_afterwards() -> None:
    before = _cores_of_the_kernels_threads()
    calls = []

    def comes_back() -> bool:
        call, moved = Call(time.perf_counter(), 0.01), _moved(before)
        assert all(TEST_CORE not in cores for cores in moved.values())
        if moved:
            calls.append(call)
        return bool(calls) and not moved

    with Shield(TEST_CORE) as shield:
        wait_until(comes_back, "threads are not moved there and back")
    assert not _moved(before)
    assert shield.behind(calls)
    assert not shield.without(calls)


def test_threads_are_given_back_when_it_ends_behind_the_shield() -> None:
    before = _cores_of_the_kernels_threads()
    with pytest.raises(ZeroDivisionError), Shield(TEST_CORE):
        wait_until(lambda: bool(_moved(before)), "no thread was moved")
        raise ZeroDivisionError
    assert not _moved(before)


def _cores_of_the_kernels_threads() -> dict[int, set[int]]:
    threads = {}
    for thread in psutil.Process(2).children():
        with suppress(OSError):
            threads[thread.pid] = os.sched_getaffinity(thread.pid)
    return threads


def _moved(before: dict[int, set[int]]) -> dict[int, set[int]]:
    now = _cores_of_the_kernels_threads()
    return {pid: cores for pid, cores in now.items() if cores != before.get(pid, cores)}
