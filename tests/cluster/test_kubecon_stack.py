"""One stack file, unchanged, in the cluster and on one machine: the same answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running_platform import PYTHONPATH, REPOSITORY, Platform

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

EXAMPLE = REPOSITORY / "stack-examples" / "kubecon"
BODY, ANSWER = b"Let's get started", "You said: Let's get started"


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """The example's stack file, in a copy of its folder: a build writes beside it."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "kubecon")) / "stack.yml"


def stoker(*arguments: str, environment: dict[str, str], input: str = "") -> str:
    """What it prints; fails with its error."""
    command = [sys.executable, "-m", "stoker_cli", *arguments]
    done = subprocess.run(command, env=environment, input=input, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_builds_pushes_and_deploys_into_the_cluster(installed: Installed, stack: Path, tmp_path: Path) -> None:
    cluster = installed.cluster
    environment = cluster.environment | {"PYTHONPATH": PYTHONPATH, "HOME": str(tmp_path), "OPENFAAS_URL": installed.url}
    login = ("login", "-g", installed.url, "--password-stdin")
    stoker(*login, environment=environment, input=installed.password())
    flags = ("--prefix", f"{cluster.pod_registry}/kubecon", "--build-arg", f"PYTHON_IMAGE={cluster.base_image}")
    where = ("-f", str(stack), "-g", installed.url, "-n", installed.functions)
    url = stoker("up", *where, *flags, environment=environment).removeprefix("kubecon: ").strip()
    assert installed.call(url.removeprefix(installed.url), BODY)[:2] == (200, ANSWER)
    held = ("get", "deployment", "kubecon", "-n", installed.functions, "-o", "jsonpath={..image}")
    assert installed.kubectl(*held).startswith(f"{cluster.pod_registry}/kubecon/kubecon@sha256:")
    installed.client.remove("kubecon", installed.functions)


def test_up_of_the_same_file_deploys_on_one_machine(platform: Platform, stack: Path) -> None:
    environment = {**os.environ, **platform.environment}
    stoker("up", "-f", str(stack), "-g", platform.http_url, environment=environment)
    answer = platform.call("kubecon", BODY)
    assert (answer.status, answer.text) == (200, ANSWER)
    platform.client.remove("kubecon")
