"""A Docker Engine that ends and comes back, below a platform whose functions are its containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_engine import OwnEngine
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import Unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

WHO = "import socket\n\ndef handle(req):\n    return socket.gethostname()\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    one = OwnEngine()
    try:
        yield one.start()
    finally:
        one.delete()


@pytest.fixture
def platform_there(make_platform: Callable[..., Platform], engine: OwnEngine, cluster: Cluster) -> Platform:
    platform = make_platform(flags=("--docker-host", engine.host, "--no-async"))
    platform.deploy_image("who", cluster.function("machine-who", WHO))
    return platform


def test_an_engine_that_restarts_is_found_again(platform_there: Platform, engine: OwnEngine) -> None:
    platform = platform_there
    old = platform.call("who").text
    engine.end()
    with pytest.raises(Unavailable, match="no Docker Engine answers"):
        platform.deploy_image("other", "localhost:1/x:1")
    engine.start()
    wait_for(lambda: platform.call("who").status == 200, "an answer", 60)
    platform.wait_ready("who")
    assert platform.call("who").text != old
    assert len(engine.docker("ps", "-aq").split()) == 1


def test_containers_serve_while_no_engine_answers_and_what_ended_then_is_replaced(
    make_platform: Callable[..., Platform], cluster: Cluster, tmp_path: Path
) -> None:
    real, link = cluster.environment["DOCKER_HOST"].removeprefix("unix://"), tmp_path / "docker.sock"
    link.symlink_to(real)
    platform = make_platform(flags=("--docker-host", f"unix://{link}", "--no-async"))
    platform.deploy_image("alone", cluster.function("machine-who", WHO))
    old = platform.call("alone").text
    link.unlink()
    assert platform.call("alone").text == old
    (instance,) = platform.condition("alone").instances
    (container,) = cluster.containers(f"stoker.dev/replica={instance.id}")
    cluster.docker("kill", container)
    refused = wait_for(lambda: one if (one := platform.call("alone")).status == 503 else None, "a refusal")
    assert "no Docker Engine answers" in refused.text
    link.symlink_to(real)
    wait_for(lambda: platform.call("alone").status == 200, "an answer", 60)
    assert platform.call("alone").text != old
