"""Starts what is measured, pins it to its core, and stops it by its pid, whatever happens meanwhile.

The benchmark and the load share one core, what is under test has the other; so neither takes time from the other, and
what is measured is a core's worth of work.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

TEST_CORE, LOAD_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005

_MB = 2**20


class BenchError(Exception):
    """A figure cannot be measured; the message says why."""


@dataclass(frozen=True)
class Started:
    """A process that answers at `url`."""

    pid: int
    url: str
    port: int


def python(*arguments: str) -> list[str]:
    """A command line of the interpreter that runs the benchmark."""
    return [sys.executable, *arguments]


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | Sequence[int],
    log: Path,
    descriptors: Sequence[int] = (),
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, pinned to a core or several, in a session of its own, until the block ends. What it prints goes to
    `log`.
    """
    cores = ",".join(map(str, [core] if isinstance(core, int) else core))
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", cores, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            env=_environment(),
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    except BenchError as error:
        raise BenchError(f"{error}{_last_lines(log)}") from error
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    """Ours, but everybody may write byte code: without it starts would be slower than they are for users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-5:]
    return "".join(f"\n    {log.name}: {line}" for line in lines)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = _family(process.pid)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in family:  # psutil knows them by pid and start time, so a pid that is used again is not hit
        _quietly(one.kill)


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        pass


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it. Raises `BenchError` when it has ended."""
    members = _family(pid)
    if not members:
        raise BenchError(f"process {pid}, which was to be measured, has ended")
    return members


def cpu_seconds(pid: int) -> float:
    """Processor time that a process, its living descendants, and those of them that have ended, have used so far."""
    total = 0.0
    for member in family(pid):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def own_seconds() -> float:
    """Processor time of the benchmark and all that it has started, what has ended included."""
    return cpu_seconds(os.getpid())


def machine_seconds() -> float:
    """Processor time that anybody has used on our two cores; what the kernel does for the network is in there."""
    cores = psutil.cpu_times(percpu=True)
    used = [cores[core] for core in (TEST_CORE, LOAD_CORE)]
    return float(sum(core.user + core.nice + core.system + core.irq + core.softirq + core.steal for core in used))


@dataclass(frozen=True)
class Memory:
    """What one process takes, in MB as `ps` counts (2**20 bytes): its own pages; those and its share of others."""

    name: str
    uss: float
    pss: float


def memory_of(pid: int) -> dict[int, Memory]:
    """A process and all that descend from it, by pid."""
    return {member.pid: _memory(member) for member in family(pid)}


def _memory(process: psutil.Process) -> Memory:
    command, sizes = process.cmdline(), process.memory_full_info()
    name = command[command.index("-m") + 1] if "-m" in command else process.name()
    return Memory(str(name), sizes.uss / _MB, sizes.pss / _MB)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Return as soon as the condition holds; raises `BenchError` with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        time.sleep(_POLL_SECONDS)


def answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process answers `url` with 200."""
    wait_until(lambda: process.poll() is not None or _is_ok(url), f"{url} does not answer")
    if process.poll() is not None:
        raise BenchError(f"{process.args!r} ended with exit code {process.returncode}")


def _is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def work_on_load_core() -> None:
    """Put this process on the load's core, and make a stop signal unwind it so that all is stopped."""
    if TEST_CORE == LOAD_CORE:
        raise BenchError("two cores are needed: one for what is measured, one for the load")
    os.sched_setaffinity(0, {LOAD_CORE})
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
