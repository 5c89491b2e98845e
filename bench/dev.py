"""`stoker dev`: how long a developer waits from saving a file until the new code answers.

The real command runs on a project of one function. A save is what editors do (a new file takes the old one's name); a
caller asks on an open connection until the new answer comes. Pauses between saves are those of a quick typist, so that
each save finds the platform at rest. The peer is what a developer does without it: `stoker up` after each save.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep

from bench.processes import TEST_CORE, BenchError, machine_seconds, own_seconds, python, running, wait_until
from bench.report import Figure
from bench.serving import serving

_SAVES = 50
_TAKEN_AGAIN = 3
_MUCH = 0.06
_PEER_SAVES = 5
_PAUSE_SECONDS = 0.7
_ANSWER_SECONDS = 10.0
_ASK_SECONDS = 0.002
_STACK = "provider:\n  name: openfaas\nfunctions:\n  hello: {lang: python3-http, handler: ./hello, image: hello}\n"


def dev_figures(folder: Path) -> list[Figure]:
    """`dev_reload_p95_ms`."""
    project = folder / "project"
    (project / "hello").mkdir(parents=True)
    (project / "stack.yml").write_text(_STACK)
    with _developing(folder, project) as url:
        first, *times = _undisturbed(url, project)
    peer = _with_up(folder, project)
    p95 = quantiles(times, n=100)[94]
    note = f"{len(times)} saves: median {median(times):.0f}, slowest {max(times):.0f} ms; the first {first:.0f} ms"
    return [Figure("dev_reload_p95_ms", p95, f"{p95:.0f} ms", f"`stoker up` {peer:.0f} ms", note)]


def _undisturbed(url: str, project: Path) -> list[float]:
    """A series of saves; taken again, three times at most, when others used much of the two cores meanwhile."""
    series = []
    for _ in range(_TAKEN_AGAIN):
        own, machine, begun = own_seconds(), machine_seconds(), perf_counter()
        times = _reloads(url, project, _SAVES + 1, lambda: None)
        others = (machine_seconds() - machine - (own_seconds() - own)) / (perf_counter() - begun) / 2
        series.append((others, times))
        if others < _MUCH:
            break
    return min(series)[1]


@contextmanager
def _developing(folder: Path, project: Path) -> Iterator[str]:
    """`stoker dev` on the project until the block ends; its address."""
    ready = folder / "dev-ready.json"
    _save(project, "begin")
    flags = ["--port", "0", "--data-dir", str(folder / "dev"), "--ready-file", str(ready)]
    command = python("-m", "stoker_cli", "dev", *flags)
    with running(command, core=TEST_CORE, log=folder / "dev.log", folder=project) as process:
        wait_until(lambda: ready.exists() or process.poll() is not None, "stoker dev is not ready", 120)
        if process.poll() is not None:
            raise BenchError(f"stoker dev ended with exit code {process.returncode}")
        yield json.loads(ready.read_text())["http"]


def _with_up(folder: Path, project: Path) -> float:
    """The median of the same with `stoker up` on a platform that runs, tests switched off."""
    with serving(folder, "--proxies", "1") as platform:
        environment = os.environ | {"STOKER_DATA_DIR": str(platform.data), "OPENFAAS_URL": platform.url}

        def up() -> None:
            command = [sys.executable, "-m", "stoker_cli", "up", "--build-arg", "TEST_ENABLED=false"]
            subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True, timeout=60)

        up()
        return median(_reloads(platform.url, project, _PEER_SAVES, up))


def _reloads(url: str, project: Path, times: int, then: Callable[[], None]) -> list[float]:
    """Milliseconds from each save to its answer; `then` is what the developer does after saving."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
    marker = perf_counter()  # no answer of an earlier series may pass for a new one
    taken = []
    for number in range(times):
        sleep(_PAUSE_SECONDS)
        begun = perf_counter()
        _save(project, f"version {marker}-{number}")
        then()
        while _answer(connection) != f"version {marker}-{number}".encode():
            if perf_counter() - begun > _ANSWER_SECONDS:
                raise BenchError(f"save {number} was not taken over within {_ANSWER_SECONDS:g} s")
            sleep(_ASK_SECONDS)
        taken.append((perf_counter() - begun) * 1000)
    connection.close()
    return taken


def _save(project: Path, answer: str) -> None:
    new = project / "hello" / "handler.py~"
    new.write_text(f"def handle(event, context):\n    return {answer!r}\n")
    new.rename(project / "hello" / "handler.py")


def _answer(connection: HTTPConnection) -> bytes:
    connection.request("GET", "/function/hello")
    return connection.getresponse().read()
