"""Pushes that become images: built by the real Engine's BuildKit, pushed to the real registry, run as containers."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_cluster import Cluster
from running_platform import Platform
from working_copy import WorkingCopy, passing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PATH = "pushed"


def stack(cluster: Cluster, *names: str, more: str = "", lang: str = "python3") -> str:
    """Whatever `image` says there, the platform names images itself."""
    text = "provider:\n  name: openfaas\nfunctions:\n"
    for name in names:
        text += f"  {name}:\n    lang: {lang}\n    handler: ./{name}\n    image: elsewhere.example.org/{name}:1\n"
        text += f'    build_args: {{PYTHON_IMAGE: "{cluster.base_image}"}}\n{more}'
    return text


@pytest.fixture(scope="module")
def shared(cluster: Cluster, platform: Platform) -> Iterator[Platform]:
    engine = ("--docker-host", cluster.environment["DOCKER_HOST"])
    flags = (*engine, "--image-builder", "docker", "--image-prefix", f"{cluster.registry}/{PATH}")
    one = Platform(like=platform, flags=flags)
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


@pytest.fixture
def copy(shared: Platform, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    """An empty repository of an owner of this test's own."""
    owner = request.node.name.replace("_", "-").removeprefix("test-")[:30].strip("-")
    return WorkingCopy(shared, tmp_path / "greet", f"{owner}/greet")


def digest_in_registry(cluster: Cluster, image: str) -> str:
    path, _, tag = image.removeprefix(f"{cluster.registry}/").partition(":")
    question = urllib.request.Request(f"http://{cluster.registry}/v2/{path}/manifests/{tag}", method="HEAD")
    question.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
    with urllib.request.urlopen(question, timeout=10) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def test_a_push_is_tested_built_pushed_and_live_as_a_container(cluster: Cluster, copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", f"{uuid.uuid4()} "), stackDOTyml=stack(cluster, "greet"))
    pushed = copy.push("-o", "wait")
    assert pushed.code == 0, pushed.said
    assert "1 passed" in pushed.said and "[test " in pushed.said, "the log comes line by line"
    name = copy.service("greet")
    status = copy.platform.status(name)
    tagged, _, digest = status.image.partition("@")
    assert tagged.startswith(f"{cluster.registry}/{PATH}/{name}:") and digest == digest_in_registry(cluster, tagged)
    assert copy.answer("greet").endswith(" you")
    (container,) = cluster.containers(f"stoker.dev/function={name}")
    assert json.loads(cluster.docker("inspect", container))[0]["Config"]["Image"].endswith(digest)
