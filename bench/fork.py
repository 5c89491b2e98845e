"""A process per call: the classic mode of a replica alone, over HTTP, against a bare loop that forks the same program.

In turns on one core. The replica parses requests, passes headers on as environment, reads through its event loop,
bounds time and counts; the loop does nothing but start `cat`, write, read and wait.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median

from bench.load import wrk
from bench.processes import TEST_CORE, BenchError, python
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
        pairs = [(wrk(replica.url, _CONNECTIONS, _SECONDS, script=_POST), _loop(_SECONDS)) for _ in range(_ROUNDS)]
    ratios = [ours.rate / theirs for ours, theirs in pairs]
    rates = median(ours.rate for ours, _ in pairs), median(theirs for _, theirs in pairs)
    note = f"rounds {min(ratios):.2f} to {max(ratios):.2f}; p99 {median(ours.p99 for ours, _ in pairs):.2f} ms"
    return [Figure("fork_vs_loop", median(ratios), f"{rates[0]:,.0f}/s", f"bare loop {rates[1]:,.0f}/s", note)]


def _loop(seconds: int) -> float:
    command = ["taskset", "--cpu-list", str(TEST_CORE), *python(str(_LOOP), str(seconds), _PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False, env=_ENVIRONMENT)
    if done.returncode:
        raise BenchError(f"the bare loop failed: {done.stderr.strip()}")
    return float(done.stdout)
