"""A process per call: the classic mode of a replica alone, over HTTP, against a bare loop that forks the same program.

In turns on one core. The replica parses requests, passes headers on as environment, reads through its event loop,
bounds time and counts; the loop does nothing but start `cat`, write, read and wait.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped, unused-ignore]

from bench.load import wrk
from bench.processes import TEST_CORE, BenchError, Started, python
from bench.replica import started_replica
from bench.report import Figure

_PROGRAM = "/bin/cat"
_LOOP = Path(__file__).parent / "peers" / "fork_loop.py"
_POST = Path(__file__).parent / "peers" / "post.lua"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""Of both: a larger one takes longer to pass on, and a locale longer to load."""
_CONNECTIONS = 4
_ROUNDS = 6
_SECONDS = 2


def fork_figures(folder: Path) -> list[Figure]:
    """`fork_vs_loop`."""
    with started_replica(folder, mode="classic", command=[_PROGRAM], environment=_ENVIRONMENT) as replica:
        _loop(1)
        wrk(replica.url, _CONNECTIONS, 1, script=_POST)
        pairs = [(_replica(replica), _loop(_SECONDS)) for _ in range(_ROUNDS)]
    ratios = [ours.rate / loop.rate for ours, loop in pairs]
    ours, loop = median(one.rate for one, _ in pairs), median(one.rate for _, one in pairs)
    by_core_time = median(loop.core_seconds / ours.core_seconds for ours, loop in pairs)
    note = f"rounds {min(ratios):.2f} to {max(ratios):.2f}; {by_core_time:.2f} by core time"
    return [Figure("fork_vs_loop", median(ratios), f"{ours:,.0f}/s", f"bare loop {loop:,.0f}/s", note)]


@dataclass(frozen=True)
class _Round:
    """Runs a second, and the processor time of one, its process included."""

    rate: float
    core_seconds: float


def _replica(replica: Started) -> _Round:
    before = _with_children(replica.pid)
    rate = wrk(replica.url, _CONNECTIONS, _SECONDS, script=_POST).rate
    return _Round(rate, (_with_children(replica.pid) - before) / (rate * _SECONDS))


def _with_children(pid: int) -> float:
    """Processor time of a process and of all its children that have ended."""
    return float(sum(psutil.Process(pid).cpu_times()[:4]))


def _loop(seconds: int) -> _Round:
    command = ["taskset", "--cpu-list", str(TEST_CORE), *python(str(_LOOP), str(seconds), _PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False, env=_ENVIRONMENT)
    if done.returncode:
        raise BenchError(f"the bare loop failed: {done.stderr.strip()}")
    return _Round(*map(float, done.stdout.split()))
