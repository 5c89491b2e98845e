"""Waking from zero: how long a caller waits for the first byte when no replica runs.

Before each call the function is scaled to zero, the replica's process has ended, and the platform says so. The call
goes over a connection that was open before, as a load balancer in front would have it. The peer is what a process for
each call costs at least: a fresh interpreter that imports the same handler and calls it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from bench.processes import TEST_CORE, BenchError, python, wait_until
from bench.report import Figure
from bench.serving import HELLO, WITH_PANDAS, Serving, condition, serving
from stoker_sdk.client import ControlClient

_TIMES = 200
_PANDAS_TIMES = 50
_COLD_TIMES = 15
_GONE_SECONDS = 30
_ANSWER_SECONDS = 65  # the platform itself gives up at 60
_COLD = "import handler; handler.handle(None, None)"


def wake_figures(folder: Path) -> list[Figure]:
    """`wake_p50_ms`, `wake_p99_ms`."""
    with serving(folder, "--proxies", "1") as platform:
        platform.deploy("hello", HELLO)
        times = _wakes(platform, "hello", _TIMES)
    cold = median(_cold_starts(HELLO, ""))
    p50, p99 = median(times), quantiles(times, n=100)[98]
    peer = f"a process for each call {cold:.1f} ms"
    note = f"{len(times)} wakes: fastest {min(times):.2f}, slowest {max(times):.2f} ms"
    return [
        Figure("wake_p50_ms", p50, f"{p50:.2f} ms", peer, note),
        Figure("wake_p99_ms", p99, f"{p99:.2f} ms", peer),
    ]


def wake_pandas_figures(folder: Path) -> list[Figure]:
    """`wake_pandas_p50_ms`."""
    with serving(folder, "--proxies", "1") as platform:
        platform.deploy("frames", WITH_PANDAS)
        first, *times = _wakes(platform, "frames", _PANDAS_TIMES + 1)
        (environment,) = (platform.data / "environments").iterdir()
        cold = median(_cold_starts(WITH_PANDAS, str(environment)))
    p50 = median(times)
    peer = f"a process for each call {cold:.1f} ms"
    note = f"{len(times)} wakes: fastest {min(times):.2f}, slowest {max(times):.2f} ms; the first {first:.0f} ms"
    return [Figure("wake_pandas_p50_ms", p50, f"{p50:.2f} ms", peer, note)]


def _wakes(platform: Serving, name: str, times: int) -> list[float]:
    """Milliseconds from the request to the first byte of the answer, each time from zero."""
    client = platform.client()
    with _connection(platform.url) as connection:
        _time_call(connection, name)
        taken = []
        for _ in range(times):
            _to_zero(client, name)
            taken.append(_time_call(connection, name))
    return taken


def _to_zero(client: ControlClient, name: str) -> None:
    """Scale to zero and wait until the process has ended and the platform knows."""
    processes = [os.pidfd_open(instance.pid) for instance in condition(client, name).instances]
    if not processes:
        raise BenchError(f"function {name} has answered, but has no replica")
    client.scale(name, 0)
    for process in processes:
        ended, _, _ = select.select([process], [], [], _GONE_SECONDS)
        os.close(process)
        if not ended:
            raise BenchError(f"a replica of {name} did not end within {_GONE_SECONDS} s")
    wait_until(lambda: not condition(client, name).instances, f"function {name} is not at zero")


@contextmanager
def _connection(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            yield connection
        except TimeoutError:
            raise BenchError(f"no answer within {_ANSWER_SECONDS} s of a wake") from None


def _time_call(connection: socket.socket, name: str) -> float:
    request = f"GET /function/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    begun = perf_counter()
    connection.sendall(request)
    answer = connection.recv(65536)
    taken = (perf_counter() - begun) * 1000
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"function {name} answered {answer[:300]!r}")
    _read_rest(connection, answer)
    return taken


def _read_rest(connection: socket.socket, answer: bytes) -> None:
    """Read to the end of the answer, whose length is told in its head."""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


def _cold_starts(folder: Path, packages: str) -> list[float]:
    """Milliseconds that fresh interpreters take to import the handler, call it, and end; byte code is there already."""
    command = ["taskset", "--cpu-list", str(TEST_CORE), *python("-c", _COLD)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{packages}"}
    taken = []
    for _ in range(_COLD_TIMES + 1):
        begun = perf_counter()
        subprocess.run(command, env=environment, check=True, timeout=60)
        taken.append((perf_counter() - begun) * 1000)
    return taken[1:]
