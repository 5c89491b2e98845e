"""A light, steady load, as a process of its own: `python -m bench.steady URL CALLS-A-SECOND`.

It calls over one connection. When it is told to stop it prints a line for each call: when it began, by
`time.perf_counter`, whose clock all processes share, and how many milliseconds it took.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import BenchError, python

_CALL_SECONDS = 10.0


@dataclass(frozen=True)
class Call:
    """When it began, by `time.perf_counter`, and how long it took."""

    begun: float
    ms: float

    @property
    def ended(self) -> float:
        return self.begun + self.ms / 1000


class Calls:
    """The load, while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self) -> list[Call]:
        """Stop it; its calls in order. Raises `BenchError` when one failed."""
        self._process.terminate()
        out, err = self._process.communicate(timeout=_CALL_SECONDS * 2)
        if self._process.returncode:
            raise BenchError(f"a call of the steady load failed: {err.strip()[-300:]}")
        return [Call(*map(float, line.split())) for line in out.splitlines()]


@contextmanager
def steady_calls(url: str, rate: int, core: int) -> Iterator[Calls]:
    """So many GETs a second from a process on this core, until `end` or the end of the block."""
    command = ["taskset", "--cpu-list", str(core), *python("-m", "bench.steady", url, str(rate))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,  # schedulers share the processor out among sessions: it is no part of ours
    )
    try:
        yield Calls(process)
    finally:
        process.kill()
        process.wait()


def main(url: str, rate: float) -> int:
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_CALL_SECONDS)
    taken: list[Call] = []
    due = time.perf_counter()
    while not stopped:
        begun = time.perf_counter()
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        answer.read()
        taken.append(Call(begun, (time.perf_counter() - begun) * 1000))
        if answer.status != 200:
            print(f"status {answer.status}", file=sys.stderr)
            return 1
        due = max(due + 1 / rate, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))
    print("\n".join(f"{one.begun:.6f} {one.ms:.4f}" for one in taken))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
