"""From `git push` until the new answer, beside `docker build` and `docker run` of the same function.

The function has a package of some weight and a test. Each change is one line of its handler; packages are installed and
layers are cached before the first that counts. Both have both cores: the Docker Engine is not ours to pin.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.processes import LOAD_CORE, TEST_CORE, BenchError, free_port, python
from bench.pushing import STACK, WorkingCopy, end_of
from bench.report import Figure
from bench.serving import Serving, serving
from stoker_sdk.runs import Run
from tests.running_cluster import Cluster

_TIMES = 20
_WARM_UP = 2
_NAME = "frames"
_HANDLER = """import pandas

TEXT = {text!r}


def handle(req):
    return f"{{TEXT}} {{pandas.Series([20, 22]).sum()}}"
"""
_FILES = {
    "requirements.txt": "pandas>=2.2,<4\n",
    "handler_test.py": "from .handler import handle\n\n\ndef test_it_sums():\n    assert handle('').endswith(' 42')\n",
}
_IMAGE = "stoker-bench-push"
_PAUSE_SECONDS = 3.0
"""After a push the platform gets ready for the next one, which must not slow what it is compared with."""
_ASK_SECONDS = 0.02
_ANSWER_SECONDS = 120.0

Stages = dict[str, float]
"""Seconds by stage, in order."""


def push_figures(folder: Path) -> list[Figure]:
    """`push_vs_docker`."""
    with _cluster() as cluster, serving(folder, cores=(TEST_CORE, LOAD_CORE)) as platform:
        pushes, builds = _Pushes(platform, folder / "pushed"), _Builds(cluster, folder / "built")
        with builds.running():
            first, _ = pushes.change("first")
            ours, theirs, stages = [], [], []
            measured = int(time.time())  # the Engine remembers what it built when this was measured before
            for number in range(-_WARM_UP, _TIMES):
                text = f"version {measured}.{number}"
                mine, parts = pushes.change(text)
                time.sleep(_PAUSE_SECONDS)
                other = builds.change(text)
                if number >= 0:
                    ours.append(mine)
                    theirs.append(other)
                    stages.append(parts)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    split = ", ".join(f"{name} {median(each[name] for each in stages) * 1000:.0f}" for name in stages[0])
    note = (
        f"{_TIMES} changes each: ratios {min(ratios):.2f} to {max(ratios):.2f}; "
        f"p50 of each stage in ms: {split}; the first push, which installs the packages, {first:.1f} s"
    )
    value, peer = median(ratios), f"docker build and run {median(theirs):.2f} s"
    return [Figure("push_vs_docker", value, f"{median(ours):.2f} s", peer, note)]


class _Pushes:
    """A repository on our platform."""

    def __init__(self, platform: Serving, folder: Path) -> None:
        self._copy = WorkingCopy(platform, folder, "me", _NAME)
        address = self._copy.function_url.removeprefix(platform.url)
        self._ask = _asking(platform.url, address)

    def change(self, text: str) -> tuple[float, Stages]:
        """Seconds from `git push` to the answer with this text, and what they went to."""
        self._copy.commit({**_FILES, "handler.py": _HANDLER.format(text=text)})
        clock, begun = time.time(), perf_counter()
        push = self._copy.push()
        try:
            _wait_for(text, self._ask, push.poll)
            taken = perf_counter() - begun
        finally:
            end_of(push)
        return taken, _stages(self._copy.last_run(), clock, taken)


def _stages(run: Run, begun: float, taken: float) -> Stages:
    """From the run's record. What is between its stages, and after the last one, is the rest."""
    received, started = (datetime.fromisoformat(text).timestamp() for text in (run.created_at, run.started_at))
    stages = {"received": received - begun, "in line": started - received, **run.seconds}
    parts = run.functions[0].seconds
    stages |= {
        "tests": parts["tests"],
        "artefact": parts["build"],
        "deployed": parts["deploy"],
        "ready": parts["ready"],
    }
    return stages | {"first answer and the rest": taken - sum(stages.values())}


class _Builds:
    """The same function as an image of our template, whose container answers on a port of this machine."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._handler = folder / _NAME
        self._handler.mkdir(parents=True)
        (folder / "stack.yml").write_text(STACK.format(_NAME))
        for name, text in {**_FILES, "handler.py": _HANDLER.format(text="first")}.items():
            (self._handler / name).write_text(text)
        command = python("-m", "stoker_cli", "build", "--shrinkwrap")
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        self._context = folder / "build" / _NAME
        self._images: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """At the end no image of ours is left."""
        try:
            yield
        finally:
            if self._images:
                self._cluster.docker("rmi", "--force", *self._images)

    def change(self, text: str) -> float:
        """Seconds from `docker build` to the answer with this text."""
        (self._context / "function" / "handler.py").write_text(_HANDLER.format(text=text))
        port = free_port()
        base = f"PYTHON_IMAGE={self._cluster.base_image}"
        begun = perf_counter()
        image = self._cluster.docker("build", "-q", "-t", _IMAGE, "--build-arg", base, str(self._context))
        container = self._cluster.docker("run", "--detach", f"--publish=127.0.0.1:{port}:8080", _IMAGE).strip()
        try:
            _wait_for(text, _asking(f"http://127.0.0.1:{port}", "/"), lambda: None)
            return perf_counter() - begun
        finally:
            self._cluster.docker("rm", "--force", "--volumes", container)
            self._images.append(image.strip())


def _asking(url: str, path: str) -> Callable[[], str]:
    """A function that asks once: the answer, or an empty text where there is none."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_ANSWER_SECONDS)

    def ask() -> str:
        try:
            connection.request("POST", path, b"")
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            connection.close()
            return ""
        return text if answer.status == 200 else ""

    return ask


def _wait_for(text: str, ask: Callable[[], str], failure: Callable[[], int | None]) -> None:
    deadline = perf_counter() + _ANSWER_SECONDS
    while not ask().startswith(f"{text} "):
        if failure():
            raise BenchError(f"the push of {text!r} failed")
        if perf_counter() > deadline:
            raise BenchError(f"{text!r} was not answered within {_ANSWER_SECONDS:g} s")
        time.sleep(_ASK_SECONDS)


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """For its Docker Engine and its registry, which has the base image."""
    cluster = Cluster().start()
    try:
        yield cluster
    finally:
        cluster.stop()
