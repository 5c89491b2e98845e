"""The operator on a real cluster: what is asked of the API is written as Function resources."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from operated_cluster import Resources, operated_namespace, operator, platform_flags
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import HISTORY, IDENTITY, RECORD, SPEC
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.function import FunctionSpec
from stoker_sdk.function import Resources as ResourcesOf
from stoker_sdk.function_resource import resource_of
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE, GROUP = "stoker-operator-api", "operator-api-test.stoker.dev"


@pytest.fixture(scope="module")
def resources(cluster: Cluster) -> Iterator[Resources]:
    with operated_namespace(cluster, NAMESPACE, GROUP) as one:
        yield one


@pytest.fixture(scope="module")
def serving(cluster: Cluster, resources: Resources) -> Iterator[Platform]:
    with operator(resources, cluster.kubeconfig) as platform:
        yield platform


def test_what_is_asked_of_the_api_is_written_as_a_resource(serving: Platform, resources: Resources) -> None:
    spec = FunctionSpec("asked", resources.image, NAMESPACE, env_vars={"GREETING": "one"}, labels={})
    serving.client.create(spec)
    function = resources.get("function", "asked")
    assert function is not None and function["apiVersion"] == f"{GROUP}/v1"
    assert function["spec"] == {
        "name": "asked",
        "image": resources.image,
        "environment": {"GREETING": "one"},
        "labels": {},
    }
    resources.until_ready("asked")
    resources.kubectl("label", f"functions.{GROUP}", "asked", "team=x")
    serving.client.update(FunctionSpec("asked", resources.image, NAMESPACE, env_vars={"GREETING": "two"}))
    function = resources.get("function", "asked")
    assert function is not None and function["spec"]["environment"] == {"GREETING": "two"}
    assert function["metadata"]["labels"] == {"team": "x"}
    resources.until_ready("asked", generation=2)
    serving.client.rollback("asked", 1, NAMESPACE)
    function = resources.get("function", "asked")
    assert function is not None and function["spec"]["environment"] == {"GREETING": "one"}
    assert [one.rollback_to for one in serving.client.revisions("asked", NAMESPACE)] == [0, 0, 1]
    serving.client.scale("asked", 2, NAMESPACE)
    after = resources.get("function", "asked")
    assert after is not None and after["metadata"]["generation"] == function["metadata"]["generation"]
    resources.delete("asked")
    wait_for(lambda: "asked" not in resources.listed(serving), "the list without it", 60)
    serving.client.create(spec)
    serving.client.remove("asked", NAMESPACE)
    assert "asked" not in resources.listed(serving)
    resources.until_gone("asked")
    with pytest.raises(NotFound):
        serving.client.update(spec)


def test_what_the_cluster_refuses_of_an_update_leaves_the_resource_as_it_was(
    serving: Platform, resources: Resources
) -> None:
    serving.client.create(FunctionSpec("refused", resources.image, NAMESPACE))
    before = resources.get("function", "refused")
    assert before is not None
    wrong = FunctionSpec(
        "refused", resources.image, NAMESPACE, annotations={"com.openfaas.serviceaccount": "not/a/name"}
    )
    with pytest.raises(BadInput, match="serviceAccountName"):
        serving.client.update(wrong)
    after = resources.get("function", "refused")
    assert after is not None and after["spec"] == before["spec"]
    serving.client.remove("refused", NAMESPACE)


def test_a_tag_that_moved_is_rolled_out_by_a_deploy_and_a_rollback_needs_no_registry(
    serving: Platform, resources: Resources, cluster: Cluster
) -> None:
    tag = cluster.tag(resources.image, "operator-moving:latest")
    serving.client.create(FunctionSpec("moving", tag, NAMESPACE, env_vars={"GREETING": "x"}))
    resources.until_ready("moving")
    cluster.tag(cluster.function("operator-other", "def handle(req):\n    return 'other'\n"), "operator-moving:latest")
    resources.kubectl("annotate", f"functions.{GROUP}", "moving", "note=x")  # no reason to look at the registry
    serving.client.update(FunctionSpec("moving", tag, NAMESPACE, env_vars={"GREETING": "x"}))
    wait_for(lambda: resources.call(serving, "moving") == "other", "the new image")
    first, second = serving.client.revisions("moving", NAMESPACE)
    assert first.digest != second.digest
    resources.until_ready("moving")
    serving.client.rollback("moving", 1, NAMESPACE)
    wait_for(lambda: resources.call(serving, "moving") == "x x", "the image of before")
    assert (resources.get("function", "moving") or {})["status"]["image"].endswith(first.digest)
    serving.client.remove("moving", NAMESPACE)


def test_the_history_is_in_the_status_too(serving: Platform, resources: Resources) -> None:
    serving.client.create(FunctionSpec("told", resources.image, NAMESPACE))
    resources.until_ready("told")
    status = (resources.get("function", "told") or {})["status"]
    assert [one.number for one in unpacked(status["history"])] == [1] and status["revision"] == 1
    serving.client.remove("told", NAMESPACE)


def test_both_ways_make_the_same_objects(serving: Platform, resources: Resources, cluster: Cluster) -> None:
    """But for who owns them, and the names by which the platform tells one function from its predecessors."""
    serving.client.create_secret(Secret("operator-golden", NAMESPACE, "x"))
    spec = FunctionSpec(
        "golden",
        resources.image,
        NAMESPACE,
        env_process="",
        env_vars={"B": "2", "A": "1"},
        secrets=["operator-golden"],
        labels={"team": "x", "com.openfaas.scale.min": "2"},
        annotations={"note": "text"},
        limits=ResourcesOf(memory="256Mi", cpu="500m"),
        requests=ResourcesOf(memory="64Mi"),
        read_only_root_filesystem=True,
    )
    plain = Platform(flags=platform_flags(NAMESPACE), KUBECONFIG=str(cluster.kubeconfig))
    try:
        plain.start().client.create(spec)
        by_api = made(resources, "golden")
        plain.client.remove("golden", NAMESPACE)
        resources.until_gone("golden")
    finally:
        plain.delete()
    resources.apply(resource_of(spec, GROUP))
    resources.until_ready("golden")
    assert made(resources, "golden") == by_api
    serving.client.remove("golden", NAMESPACE)
    resources.until_gone("golden")
    serving.client.create(spec)
    assert made(resources, "golden") == by_api
    serving.client.remove("golden", NAMESPACE)


def made(resources: Resources, name: str) -> list[dict[str, Any]]:
    """Deployment and Service, without what differs between any two objects."""
    found = [resources.get(kind, name) for kind in ("deployment", "service")]
    return [_essence(one) for one in found if one is not None]


def _essence(one: dict[str, Any]) -> dict[str, Any]:
    metadata, spec = one["metadata"], one["spec"]
    annotations = metadata["annotations"]
    history = [(kept.number, kept.spec, kept.image) for kept in unpacked(annotations.pop(HISTORY, ""))]
    for each in (metadata, spec.get("template", {}).get("metadata", {})):
        each.get("annotations", {}).pop(IDENTITY, None)
    for name in ("deployment.kubernetes.io/revision", RECORD):  # the record holds the identity
        annotations.pop(name, None)
    if SPEC in annotations:
        annotations[SPEC] = json.loads(annotations[SPEC])  # the cluster sorts the maps of a resource
    for name in ("clusterIP", "clusterIPs"):
        spec.pop(name, None)
    kept = {name: metadata[name] for name in ("name", "labels", "annotations")}
    return {"metadata": kept, "spec": spec, "history": history}
