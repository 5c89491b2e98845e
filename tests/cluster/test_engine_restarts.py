"""A Docker Engine that ends and comes back, below a platform whose functions are its containers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_engine import OwnEngine
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import Unavailable
from stoker_sdk.function import FunctionSpec

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


def test_an_engine_that_is_killed_takes_no_call_along_and_leaves_nothing_half_made(
    platform_there: Platform, engine: OwnEngine, cluster: Cluster
) -> None:
    platform = platform_there
    platform.wait_ready("who")
    old = platform.call("who").text
    fresh = cluster.function("machine-slow-start", "import time\n\ntime.sleep(2)\n" + WHO)
    platform.client.update(FunctionSpec("who", fresh))
    wait_for(lambda: len(engine.docker("ps", "-q").split()) == 2, "the second container, which is not ready")
    engine.kill()
    assert platform.call("who").text == old  # the container has not ended with its Engine
    for deploy in (platform.client.create, platform.client.update):
        name = "other" if deploy == platform.client.create else "who"
        with pytest.raises(Unavailable, match="no Docker Engine answers"):
            deploy(FunctionSpec(name, cluster.function("machine-who", WHO)))
    assert [one.name for one in platform.client.functions()] == ["who"]
    engine.start()
    wait_for(lambda: platform.condition("who").serving == 2, "the version whose start was broken off", 60)
    platform.wait_ready("who")
    assert platform.call("who").text not in ("", old)
    wait_for(lambda: len(engine.docker("ps", "-aq").split()) == 1, "one container, and no remains", 60)


def test_images_that_were_fetched_go_when_no_revision_needs_them(
    platform_there: Platform, engine: OwnEngine, cluster: Cluster
) -> None:
    platform = platform_there
    first, second = (cluster.function(f"machine-kept-{n}", f"def handle(req):\n    return '{n}'\n") for n in (1, 2))
    others = cluster.function("machine-others", WHO)
    engine.docker("pull", others)  # not by the platform
    platform.deploy_image("kept", first)
    platform.deploy_image("kept", second)
    platform.deploy_image("leaves", cluster.function("machine-leaves", WHO))
    platform.deploy_image("uses-others", others)
    fetched = cluster.function("machine-fetched", WHO)
    platform.deploy_image("later-others", fetched)
    engine.docker("pull", fetched)  # by its tag, after the platform did by its digest
    for name in ("leaves", "uses-others", "later-others"):
        platform.client.remove(name)

    def there() -> set[str]:
        return set(engine.docker("images", "--digests", "--format", "{{.Repository}}").split())

    stay = {image.rpartition(":")[0] for image in (first, second, others, fetched)}
    leaves = first.rpartition(":")[0].replace("machine-kept-1", "machine-leaves")
    assert {leaves, *stay} <= there()
    platform.stop()
    noted = platform.data.pulled_images
    noted.write_text(json.dumps(dict.fromkeys(json.loads(noted.read_text()), 0.0)))  # as if it were long ago
    platform.start()
    wait_for(lambda: leaves not in there(), "the end of what nothing needs", 30)
    assert stay <= there()
    platform.client.rollback("kept", 1)
    wait_for(lambda: platform.call("kept").text == "1", "the first version")


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
