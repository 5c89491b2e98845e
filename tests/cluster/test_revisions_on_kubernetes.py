"""Revisions and rollbacks on a real cluster: by digest, without the registry, and from any gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import BadInput
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "openfaas-fn"
VERSION = "def handle(req):\n    return {!r}\n"


@pytest.fixture(scope="module")
def gateways(cluster: Cluster) -> Iterator[list[Platform]]:
    """Two that share nothing but the cluster."""
    cluster.ensure_namespace(NAMESPACE)
    flags = ("--provider", "kubernetes", "--no-async")
    both = [Platform(flags=flags, KUBECONFIG=str(cluster.kubeconfig)) for _ in range(2)]
    try:
        for one in both:
            one.start()
        yield both
        for name in ("rolls", "needs", "apart"):
            both[0].client.remove(name)
    finally:
        for one in both:
            print(one.log)
            one.delete()


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> list[str]:
    return [cluster.function("revisions", VERSION.format(text)) for text in ("one", "two")]


def held(cluster: Cluster, name: str) -> str:
    """The image of the pods."""
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    return cluster.kubectl("get", "deployment", name, "-n", NAMESPACE, "-o", path)


def until_serving(platform: Platform, name: str, revision: int) -> None:
    """The replicas of the revision before have left: while both are there, both are called."""
    wait_for(lambda: platform.condition(name).serving == revision, f"revision {revision} alone to serve", 60)


def test_the_digest_of_then_comes_back_though_the_tag_has_moved(
    gateways: list[Platform], cluster: Cluster, images: list[str]
) -> None:
    one, other = gateways
    tag = cluster.tag(images[0], "revisions-moving:latest")
    one.deploy_image("rolls", tag, env_vars={"LEVEL": "debug"})
    first = held(cluster, "rolls")
    cluster.tag(images[1], "revisions-moving:latest")
    one.deploy_image("rolls", tag)
    until_serving(one, "rolls", 2)
    assert one.call("rolls").text == "two" and held(cluster, "rolls") != first

    until_serving(other, "rolls", 2)
    assert other.client.revisions("rolls") == one.client.revisions("rolls")
    done = other.client.rollback("rolls")
    assert (done.revision, done.rollback_to) == (3, 1)
    until_serving(one, "rolls", 3)
    assert one.call("rolls").text == "one"
    assert held(cluster, "rolls") == first
    last = one.client.revisions("rolls")[-1]
    assert last.changed == ["envVars.LEVEL", "image"] and first.endswith(last.digest) and last.rollback_to == 1
    assert (one.status("rolls").image, one.status("rolls").env_vars) == (tag, {"LEVEL": "debug"})


def test_a_secret_that_is_gone_is_named_and_nothing_is_written(
    gateways: list[Platform], cluster: Cluster, images: list[str]
) -> None:
    one, _ = gateways
    one.client.create_secret(Secret("rolled", value="x"))
    one.deploy_image("needs", images[0], secrets=["rolled"])
    one.deploy_image("needs", images[1])
    until_serving(one, "needs", 2)
    one.client.remove_secret("rolled")
    version = ("get", "deployment", "needs", "-n", NAMESPACE, "-o", "jsonpath={.metadata.generation}")
    before = cluster.kubectl(*version)
    with pytest.raises(BadInput, match="revision 1 cannot be put live again: secret 'rolled' does not exist"):
        one.client.rollback("needs")
    assert cluster.kubectl(*version) == before
    assert one.call("needs").text == "two"


def test_the_registry_is_not_asked(gateways: list[Platform], cluster: Cluster, images: list[str]) -> None:
    one, _ = gateways
    one.deploy_image("apart", images[0])
    one.deploy_image("apart", "localhost:1/greet:1", wait=False, annotations={"stoker.dev/unpinned": "true"})
    one.wait_failed("apart", 2)
    assert one.client.rollback("apart").rollback_to == 1
    until_serving(one, "apart", 3)
    assert one.client.rollback("apart", 2).rollback_to == 2  # that registry does not answer, and is not asked
    assert one.wait_failed("apart", 4).serving == 3
    assert [revision.failed for revision in one.client.revisions("apart")] == [False, True, False, True]
    assert one.call("apart").text == "one"
