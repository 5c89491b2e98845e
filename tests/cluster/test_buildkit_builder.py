"""`stoker build|push|up --builder buildkit`: buildctl's command line, a real BuildKit, the real registry.

Where BUILDKIT_HOST and a buildctl are, these are used; else a stand-in for the client (`tests/programs/buildctl`) takes
the documented command line and hands the work to the Engine's BuildKit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from running_cluster import Cluster
from running_platform import PYTHONPATH, Platform

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parents[1] / "programs"
Stoker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stoker(cluster: Cluster, tmp_path: Path) -> Stoker:
    has_own = "BUILDKIT_HOST" in os.environ and shutil.which("buildctl")
    environment = cluster.environment | {"PYTHONPATH": PYTHONPATH, "STOKER_DATA_DIR": str(tmp_path / "data")}
    if not has_own:
        environment["PATH"] = f"{PROGRAMS}:{environment['PATH']}"
        environment["BUILDKIT_HOST"] = cluster.environment["DOCKER_HOST"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stoker_cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def function(cluster: Cluster, stoker: Stoker, tmp_path: Path) -> Path:
    """A function as `stoker new` makes it; its folder."""
    assert stoker("new", "kit", "--lang", "python3").returncode == 0
    (tmp_path / "stack.yml").write_text(
        "provider: {name: openfaas}\nfunctions:\n  kit:\n    lang: python3\n    handler: ./kit\n"
        f"    image: {cluster.registry}/buildkit-kit:{uuid.uuid4().hex[:12]}\n"
        f'    build_args: {{PYTHON_IMAGE: "{cluster.base_image}"}}\n'
    )
    return tmp_path / "kit"


def test_a_function_is_tested_built_pushed_and_deployed(
    cluster: Cluster, stoker: Stoker, function: Path, platform: Platform
) -> None:
    with (function / "handler_test.py").open("a") as tests:
        tests.write(f"# {uuid.uuid4()}: no earlier run has left these in the cache\n")
    built = stoker("build", "--builder", "buildkit")
    image = built.stdout.strip()
    assert built.returncode == 0, built.stderr
    assert "[test " in built.stderr and "1 passed" in built.stderr, "the log comes line by line"
    pushed = stoker("push", "--builder", "buildkit")
    assert pushed.returncode == 0 and "unchanged" in pushed.stderr, pushed.stderr
    assert pushed.stdout.strip() == f"{image}@{cluster.digest(image)}"
    one = Platform(like=platform, flags=("--no-async", "--docker-host", cluster.environment["DOCKER_HOST"]))
    try:
        one.start()
        shutil.copytree(one.data.path, function.parent / "data", ignore=shutil.ignore_patterns("interpreter"))
        done = stoker("up", "--builder", "buildkit", "--gateway", one.http_url)
        assert done.returncode == 0, done.stderr
        assert one.call("kit", b"hi").text.strip() == "You sent: hi"
        assert one.status("kit").image == image
    finally:
        print(one.log)
        one.delete()


def test_a_failing_test_is_the_reason_and_nothing_is_pushed(cluster: Cluster, stoker: Stoker, function: Path) -> None:
    (function / "handler_test.py").write_text("def test_it():\n    assert 'mine' == 'yours'\n")
    done = stoker("push", "--builder", "buildkit")
    assert done.returncode == 1 and done.stdout == ""
    assert "function 'kit': its tests failed, so there is no image" in done.stderr
    assert "FAILED handler_test.py::test_it" in done.stderr


def test_what_cannot_be_done_has_its_reason(cluster: Cluster, stoker: Stoker, function: Path) -> None:
    away = stoker("build", "--builder", "buildkit", "--buildkit", "unix:///nonexistent/buildkitd.sock")
    assert away.returncode == 1 and "nonexistent" in away.stderr
    wrong = stoker("build", "--builder", "buildkit", "--buildkit", "http://x")
    assert wrong.returncode == 1 and "write unix://PATH or tcp://HOST:PORT" in wrong.stderr
    squashed = stoker("build", "--builder", "buildkit", "--squash")
    assert squashed.returncode == 1 and "does not squash layers" in squashed.stderr
    other = function.parent / "stack.yml"
    other.write_text(other.read_text().replace(cluster.registry, "localhost:1"))
    refused = stoker("push", "--builder", "buildkit")
    assert refused.returncode == 1 and "localhost:1" in refused.stderr
