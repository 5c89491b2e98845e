"""What users of a cluster count on: broken versions stay outside, a tag is one image, sick pods are replaced, and calls
go on without the cluster's API.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from running_platform import wait_for

from stoker_sdk.errors import Unavailable
from stoker_sdk.function import FunctionSpec

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HASTY = {"stoker.dev/deploy_deadline": "5s"}
VERSION = "def handle(req):\n    return {!r}\n"
WITH_HEALTH_FILE = """
import pathlib

FILE = pathlib.Path("/tmp/healthy")

def init(context):
    FILE.write_text("yes")

def health(context):
    if not FILE.exists():
        raise RuntimeError("the health file is gone")

def handle(event, context):
    if event.path == "/break":
        FILE.unlink()
    return "here"
"""


def endpoints(installed: Installed, name: str) -> list[str]:
    """The addresses that the cluster itself sends a Service's callers to."""
    found = ("get", "endpoints", name, "-n", installed.functions, "-o", "jsonpath={.subsets[*].addresses[*].ip}")
    return sorted(installed.kubectl(*found).split())


def pods_of(installed: Installed, name: str) -> list[dict[str, Any]]:
    found = installed.kubectl("get", "pods", "-n", installed.functions, "-l", f"faas_function={name}", "-o", "json")
    pods: list[dict[str, Any]] = json.loads(found)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


@pytest.mark.parametrize(
    ("handler", "constraints", "code"),
    [
        (VERSION.format("two"), ["stoker-test/disk=none-such"], "unschedulable"),
        ("raise ImportError('broken on purpose')\n", None, "cannot-start"),
    ],
)
def test_a_new_pod_that_cannot_serve_leaves_the_endpoint_where_it_is(
    installed: Installed, handler: str, constraints: list[str] | None, code: str
) -> None:
    cluster = installed.cluster
    function = installed.deploy("fragile", cluster.function("acceptance", VERSION.format("one")))
    cluster.kubectl("rollout", "status", "deployment/fragile", "-n", installed.functions)
    before = wait_for(lambda: endpoints(installed, "fragile"), "the Service's endpoint")
    image = cluster.for_pods(cluster.function("acceptance", handler))
    installed.client.update(
        FunctionSpec("fragile", image, installed.functions, constraints=constraints, annotations=HASTY)
    )
    undone = wait_for(lambda: installed.condition("fragile").rolled_back, "the failure", 60)
    assert undone.code == code
    assert endpoints(installed, "fragile") == before
    assert installed.call(f"/function/{function}", b"")[1] == "one"
    installed.client.remove("fragile", installed.functions)


def test_a_tag_that_moves_during_a_rollout_is_still_one_image_on_all_pods(installed: Installed) -> None:
    cluster = installed.cluster
    images = [cluster.function("acceptance", VERSION.format(text)) for text in ("margherita", "salami")]
    tag = cluster.tag(images[0], "acceptance:moving")
    labels = {"com.openfaas.scale.min": "2"}
    installed.client.create(FunctionSpec("pizza", cluster.for_pods(tag), installed.functions, labels=labels))
    cluster.tag(images[1], "acceptance:moving")
    installed.client.scale("pizza", 4, installed.functions)
    wait_for(lambda: installed.condition("pizza").state == "ready", "four replicas", 60)
    pods = pods_of(installed, "pizza")
    digests = {pod["status"]["containerStatuses"][0]["imageID"].rpartition("@")[2] for pod in pods}
    assert (len(pods), len(digests)) == (4, 1)
    answers = {installed.call(f"/function/pizza.{installed.functions}", b"")[1] for _ in range(20)}
    assert answers == {"margherita"}
    installed.client.remove("pizza", installed.functions)


def test_a_sick_pod_leaves_the_endpoint_is_restarted_and_comes_back(installed: Installed) -> None:
    image = installed.cluster.for_pods(installed.cluster.function("acceptance-health", WITH_HEALTH_FILE))
    probes = {
        "com.openfaas.ready.http.periodSeconds": "1s",
        "com.openfaas.ready.http.failureThreshold": "1",
        "com.openfaas.health.http.periodSeconds": "1s",
        "com.openfaas.health.http.failureThreshold": "4",
    }
    installed.client.create(FunctionSpec("sick", image, installed.functions, annotations=probes))
    before = wait_for(lambda: endpoints(installed, "sick"), "the Service's endpoint", 60)
    function = f"/function/sick.{installed.functions}"
    assert installed.call(f"{function}/break", b"")[0] == 200
    wait_for(lambda: not endpoints(installed, "sick"), "the endpoint to leave")
    wait_for(lambda: not installed.client.function("sick", installed.functions).available_replicas, "no target")
    wait_for(lambda: endpoints(installed, "sick") == before, "the endpoint to be back", 60)
    (pod,) = pods_of(installed, "sick")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    wait_for(lambda: installed.condition("sick").state == "ready", "the function")
    assert installed.call(function, b"")[:2] == (200, "here")
    installed.client.remove("sick", installed.functions)


def test_without_the_api_server_functions_answer_and_writes_are_refused(installed: Installed) -> None:
    function = installed.deploy("lasting", installed.cluster.function("acceptance", VERSION.format("still here")))
    with installed.cluster.without_api():
        for _ in range(50):
            assert installed.call(f"/function/{function}", b"")[:2] == (200, "still here")
        with pytest.raises(Unavailable, match="Kubernetes API cannot be reached"):
            installed.client.scale("lasting", 2, installed.functions)
        assert installed.condition("lasting").state == "ready"
    wait_for(lambda: is_scaled(installed), "a write", 30)
    wait_for(lambda: installed.client.function("lasting", installed.functions).available_replicas == 2, "two", 60)
    installed.client.remove("lasting", installed.functions)


def is_scaled(installed: Installed) -> bool:
    try:
        installed.client.scale("lasting", 2, installed.functions)
    except Unavailable:
        return False
    return True
