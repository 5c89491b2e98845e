"""The operator on a real cluster: what is done to Function resources, to what they own, and through the API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from counting_api import CountingApi
from function_crd import function_crd
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import HISTORY, IDENTITY, RECORD, SPEC
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.function import Resources as ResourcesOf
from stoker_sdk.function_resource import resource_of
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "stoker-operator"
GROUP = "operator-test.stoker.dev"
HANDLER = """
import os

def handle(event, context):
    return os.environ.get("GREETING", "nothing") + " " + event.body.decode()
"""
FLAGS = ("--provider", "kubernetes", "--no-async", "--function-namespace", NAMESPACE)


class Resources:
    """The Function resources of a namespace, and what was made for them, as kubectl sees them."""

    def __init__(self, cluster: Cluster, image: str, namespace: str = NAMESPACE, group: str = GROUP) -> None:
        self.cluster = cluster
        self.image = image
        self.namespace = namespace
        self.group = group

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def resource(self, name: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/{version}",
            "kind": "Function",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"name": name, "image": self.image} | spec,
        }

    def apply(self, *resources: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(resources))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        kind = f"functions.{self.group}" if kind == "function" else kind
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else None

    def pods(self, name: str) -> list[str]:
        found = json.loads(self.kubectl("get", "pods", "-l", f"faas_function={name}", "-o", "json"))["items"]
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, name: str, type: str = "Ready") -> dict[str, Any]:
        function = self.get("function", name) or {}
        found = [one for one in function.get("status", {}).get("conditions", []) if one["type"] == type]
        return found[0] if found else {}

    def until_ready(self, name: str, generation: int = 0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            one = self.condition(name)
            late = one.get("observedGeneration", 0) < generation
            return one if one.get("status") == "True" and not late else None

        return wait_for(look, f"{name} to be ready", 60)

    def until_reason(self, name: str, reason: str, words: str, seconds: float = 30) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            one = self.condition(name)
            return one if one.get("reason") == reason and words in one.get("message", "") else None

        try:
            return wait_for(look, f"{name} to say {reason}: {words}", seconds)
        finally:
            print(self.condition(name))

    def until_gone(self, name: str) -> None:
        def look() -> bool:
            return not any(self.get(kind, name) for kind in ("function", "deployment", "service"))

        wait_for(look, f"the end of {name}", 60)

    def delete(self, *names: str) -> None:
        self.kubectl("delete", f"functions.{self.group}", *names, "--ignore-not-found")


@pytest.fixture(scope="module")
def resources(cluster: Cluster) -> Iterator[Resources]:
    cluster.ensure_namespace(NAMESPACE)
    image = cluster.function("operator-greeting", HANDLER)
    with function_crd(cluster, GROUP):
        yield Resources(cluster, image)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingApi]:
    with CountingApi(cluster.kubeconfig, tmp_path_factory.mktemp("api")) as one:
        yield one


@pytest.fixture(scope="module")
def serving(resources: Resources, api: CountingApi) -> Iterator[Platform]:
    platform = Platform(flags=(*FLAGS, "--operator", "--crd-group", GROUP), KUBECONFIG=str(api.kubeconfig))
    try:
        yield platform.start()
    finally:
        print(platform.log)
        platform.delete()


def names(platform: Platform) -> list[str]:
    return [status.name for status in platform.client.functions(NAMESPACE)]


def call(platform: Platform, name: str) -> str:
    answer = platform.call(f"{name}.{NAMESPACE}", b"x")
    return answer.text if answer.status == 200 else str(answer.status)


# Resources


def test_the_reference_resource_has_the_stated_replicas_environment_and_resources(
    serving: Platform, resources: Resources
) -> None:
    nodeinfo = resources.resource(
        "nodeinfo",
        "v1alpha2",
        labels={"com.openfaas.scale.min": "2", "com.openfaas.scale.max": "15"},
        environment={"write_debug": "true"},
        limits={"cpu": "200m", "memory": "1Gi"},
        requests={"cpu": "10m", "memory": "128Mi"},
    )
    resources.apply(nodeinfo)
    resources.until_ready("nodeinfo")
    deployment = resources.get("deployment", "nodeinfo")
    assert deployment is not None and deployment["spec"]["replicas"] == 2
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "write_debug", "value": "true"} in container["env"]
    assert container["resources"] == {k: nodeinfo["spec"][k] for k in ("limits", "requests")}
    status = serving.client.function("nodeinfo", NAMESPACE)
    assert (status.replicas, status.available_replicas, status.env_vars) == (2, 2, {"write_debug": "true"})
    assert (status.image, status.labels) == (resources.image, nodeinfo["spec"]["labels"])
    head, line = resources.kubectl("get", f"functions.{GROUP}", "nodeinfo").splitlines()
    assert head.split() == ["NAME", "IMAGE", "READY", "REASON", "REPLICAS", "AGE"]
    assert line.split()[:5] == ["nodeinfo", resources.image, "True", "Running", "2"]
    resources.delete("nodeinfo")
    resources.until_gone("nodeinfo")


def test_a_deleted_resource_takes_everything_along(serving: Platform, resources: Resources) -> None:
    resources.apply(resources.resource("figlet"))
    resources.until_ready("figlet")
    assert call(serving, "figlet") == "nothing x"
    assert "figlet" in names(serving)
    for kind in ("deployment", "service"):
        made = resources.get(kind, "figlet")
        assert made is not None
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Function", "figlet", True)
    resources.delete("figlet")
    resources.until_gone("figlet")
    wait_for(lambda: not resources.pods("figlet"), "the end of its pods", 60)
    wait_for(lambda: "figlet" not in names(serving), "the list without it")
    assert serving.call(f"figlet.{NAMESPACE}").status == 404


def test_an_edited_resource_changes_its_function_and_one_that_is_touched_does_not(
    serving: Platform, resources: Resources
) -> None:
    resources.apply(resources.resource("edited", environment={"GREETING": "one"}))
    resources.until_ready("edited")
    assert call(serving, "edited") == "one x"
    resources.apply(resources.resource("edited", environment={"GREETING": "two"}))
    resources.until_ready("edited", generation=2)
    wait_for(lambda: call(serving, "edited") == "two x", "the new version")
    assert [one.number for one in serving.client.revisions("edited", NAMESPACE)] == [1, 2]
    resources.kubectl("rollout", "status", "deployment/edited")  # from then on the cluster writes no status either
    before = resources.get("deployment", "edited")
    resources.kubectl("label", f"functions.{GROUP}", "edited", "team=x")
    resources.kubectl("annotate", f"functions.{GROUP}", "edited", "note=x")
    resources.apply(resources.resource("after-edited"))
    resources.until_ready("after-edited")
    assert resources.get("deployment", "edited") == before
    resources.delete("edited", "after-edited")


def test_a_deployment_that_is_deleted_by_hand_comes_back_as_it_was(serving: Platform, resources: Resources) -> None:
    resources.apply(resources.resource("back", environment={"GREETING": "one"}))
    resources.until_ready("back")
    resources.apply(resources.resource("back", environment={"GREETING": "two"}))
    resources.until_ready("back", generation=2)
    serving.client.scale("back", 2, NAMESPACE)
    wait_for(lambda: resources.condition("back").get("status") == "True" and len(resources.pods("back")) == 2, "two")
    wait_for(lambda: (resources.get("function", "back") or {})["status"]["replicas"] == 2, "the status")
    before = resources.get("deployment", "back")
    assert before is not None
    history = serving.client.revisions("back", NAMESPACE)
    resources.kubectl("delete", "deployment", "back")

    def is_back() -> bool:
        now = resources.get("deployment", "back")
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    wait_for(is_back, "another Deployment", 20)
    after = resources.get("deployment", "back")
    assert after is not None and after["spec"] == before["spec"]
    resources.until_ready("back")
    wait_for(lambda: call(serving, "back") == "two x", "an answer")
    wait_for(lambda: serving.client.revisions("back", NAMESPACE) == history, "its history")
    resources.delete("back")


def test_a_deployment_that_is_edited_by_hand_is_set_back_by_one_write(serving: Platform, resources: Resources) -> None:
    resources.apply(
        resources.resource("edited-by-hand", environment={"GREETING": "asked"}, limits={"memory": "1024Mi"})
    )
    resources.until_ready("edited-by-hand")
    resources.kubectl("rollout", "status", "deployment/edited-by-hand")
    before = resources.get("deployment", "edited-by-hand")
    assert before is not None
    resources.kubectl("set", "env", "deployment/edited-by-hand", "GREETING=forged", "MORE=1")

    def is_back() -> bool:
        now = resources.get("deployment", "edited-by-hand")
        return now is not None and now["spec"] == before["spec"]

    wait_for(is_back, "what was asked for", 20)
    wait_for(lambda: (resources.get("function", "edited-by-hand") or {})["status"].get("setBack") == 1, "the count")
    question = ("describe", f"functions.{GROUP}", "edited-by-hand")
    wait_for(lambda: "SetBack" in resources.kubectl(*question), "an event")
    assert "spec.template.spec.containers.0.env" in resources.kubectl(*question)
    resources.kubectl("rollout", "status", "deployment/edited-by-hand")
    wait_for(lambda: call(serving, "edited-by-hand") == "asked x", "the asked answer")
    now = resources.get("deployment", "edited-by-hand")
    assert now is not None and now["metadata"]["generation"] == before["metadata"]["generation"] + 2  # his, and ours
    resources.kubectl("scale", "deployment/edited-by-hand", "--replicas=2")  # that is anybody's
    resources.kubectl("rollout", "restart", "deployment/edited-by-hand")
    resources.kubectl("rollout", "status", "deployment/edited-by-hand")
    after = resources.get("deployment", "edited-by-hand")
    assert after is not None and after["spec"]["replicas"] == 2
    assert "kubectl.kubernetes.io/restartedAt" in after["spec"]["template"]["metadata"]["annotations"]
    resources.delete("edited-by-hand")


def test_what_is_broken_says_so_and_disturbs_nobody(serving: Platform, resources: Resources, cluster: Cluster) -> None:
    one = resources.resource
    resources.apply(
        one("bad-name") | {"spec": {"name": "other", "image": resources.image}},
        one("no-secret", secrets=["operator-nothing"]),
        one("bad-quantity", limits={"memory": "lots"}),
        one("bad-scale", labels={"com.openfaas.scale.min": "9", "com.openfaas.scale.max": "2"}),
        one("bad-node", constraints=["anything"]),
        one("more-than-limit", limits={"cpu": "10m"}, requests={"cpu": "1"}),
        one("no-such-image", image=f"{cluster.registry}/operator-nothing:1"),
        one("no-registry", image="localhost:1/x:1"),
        one("fine"),
    )
    expected = {
        "bad-name": ("Invalid", "spec.name is 'other' and metadata.name 'bad-name': make them the same"),
        "no-secret": ("Invalid", "secret 'operator-nothing' does not exist"),
        "bad-quantity": ("Invalid", "limits.memory 'lots' is not a quantity"),
        "bad-scale": ("Invalid", "com.openfaas.scale.min is 9"),
        "bad-node": ("Invalid", "constraint 'anything' cannot be used"),
        "more-than-limit": ("Invalid", "must be less than or equal to cpu limit"),
        "no-such-image": ("Invalid", "does not exist in localhost"),
        "no-registry": ("Unavailable", "localhost:1"),
    }
    for name, (reason, words) in expected.items():
        found = resources.until_reason(name, reason, words)
        assert found["status"] == "False" and found["observedGeneration"] == 1
        assert resources.condition(name, "Stalled")["status"] == ("True" if reason == "Invalid" else "False")
        assert resources.get("deployment", name) is None and resources.get("service", name) is None
    resources.until_ready("fine")
    assert call(serving, "fine") == "nothing x"
    serving.client.create_secret(Secret("operator-nothing", NAMESPACE, "x"))
    resources.until_ready("no-secret")
    resources.apply(one("bad-quantity", limits={"memory": "128Mi"}))
    resources.until_ready("bad-quantity", generation=2)
    serving.client.update(FunctionSpec("bad-scale", resources.image, NAMESPACE))  # the API mends one too
    resources.until_ready("bad-scale", generation=2)
    resources.delete(*expected, "fine")


def test_the_cluster_refuses_what_is_no_function_at_all(serving: Platform, resources: Resources) -> None:
    wrong = resources.resource("wrong")
    del wrong["spec"]["image"]
    with pytest.raises(AssertionError, match=r"(?i)required.*image|image.*required"):
        resources.apply(wrong)
    with pytest.raises(AssertionError, match="environment"):
        resources.apply(resources.resource("wrong", environment=["A"]))


def test_a_broken_edit_leaves_the_old_version_serving(serving: Platform, resources: Resources) -> None:
    resources.apply(resources.resource("kept", environment={"GREETING": "old"}))
    resources.until_ready("kept")
    resources.apply(resources.resource("kept", environment={"GREETING": "new"}, secrets=["operator-missing"]))
    resources.until_reason("kept", "Invalid", "operator-missing")
    assert call(serving, "kept") == "old x"
    assert (resources.get("function", "kept") or {})["status"]["availableReplicas"] == 1
    resources.delete("kept")


def test_a_version_that_was_undone_is_not_tried_in_a_loop_and_a_deploy_tries_it_again(
    serving: Platform, resources: Resources, cluster: Cluster
) -> None:
    broken = cluster.function("operator-broken", "raise ImportError('broken on purpose')\n")
    resources.apply(resources.resource("undone", environment={"GREETING": "old"}))
    resources.until_ready("undone")
    resources.apply(resources.resource("undone") | {"spec": {"name": "undone", "image": broken}})
    found = resources.until_reason("undone", "RolledBack", "broken on purpose", 90)
    assert found["status"] == "False" and resources.condition("undone", "Stalled")["status"] == "True"
    assert call(serving, "undone") == "old x"
    assert (resources.get("function", "undone") or {})["spec"]["image"] == broken  # it stays whose it is

    def events() -> str:
        return resources.kubectl("describe", f"functions.{GROUP}", "undone").partition("Events:")[2]

    told = "revision 2 failed, and 1 is put back"
    wait_for(lambda: "RolloutFailed" in events() and told in events(), "the events")
    assert events().count(told) == 1
    resources.kubectl("annotate", f"functions.{GROUP}", "undone", "note=x")
    resources.apply(resources.resource("after-undone"))
    resources.until_ready("after-undone")
    assert [one.number for one in serving.client.revisions("undone", NAMESPACE)] == [1, 2, 3]
    assert serving.client.update(FunctionSpec("undone", broken, NAMESPACE)) == 4
    wait_for(lambda: len(serving.client.revisions("undone", NAMESPACE)) == 5, "the end of the second attempt", 90)
    resources.until_reason("undone", "RolledBack", "revision 4 failed")
    resources.apply(resources.resource("undone", environment={"GREETING": "new"}))
    resources.until_ready("undone")
    wait_for(lambda: call(serving, "undone") == "new x", "the mended version")
    resources.delete("undone", "after-undone")


FOREIGN = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: taken}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: x, image: x}]}
"""


def test_an_object_of_somebody_else_is_reported_and_never_taken_over(serving: Platform, resources: Resources) -> None:
    resources.kubectl("apply", "-f", "-", input=FOREIGN)
    resources.kubectl("create", "service", "clusterip", "taken-service", "--tcp=80")
    before = [resources.get("deployment", "taken"), resources.get("service", "taken-service")]
    assert before[0] is not None
    before[0].pop("status")
    resources.apply(resources.resource("taken"), resources.resource("taken-service"))
    resources.until_reason("taken", "NameTaken", "is no function of this platform")
    resources.until_reason("taken-service", "NameTaken", "is no function's of this platform")
    assert resources.condition("taken", "Stalled")["status"] == "True"
    after = resources.get("deployment", "taken")
    assert after is not None
    after.pop("status")
    assert [after, resources.get("service", "taken-service")] == before
    assert resources.get("deployment", "taken-service") is None
    resources.delete("taken")
    assert resources.get("deployment", "taken") is not None
    resources.kubectl("delete", "service", "taken-service")
    resources.until_ready("taken-service")
    with pytest.raises(Conflict, match="no function of this platform"):
        serving.client.create(FunctionSpec("taken", resources.image, NAMESPACE))
    assert resources.get("function", "taken") is None
    resources.kubectl("delete", "deployment", "taken")
    resources.delete("taken-service")


def test_a_resource_made_anew_waits_for_its_predecessors_end(serving: Platform, resources: Resources) -> None:
    resources.apply(resources.resource("again", environment={"GREETING": "one"}))
    resources.until_ready("again")
    first = resources.get("deployment", "again")
    resources.delete("again")
    resources.apply(resources.resource("again", environment={"GREETING": "two"}))
    resources.until_ready("again")
    second = resources.get("deployment", "again")
    assert first is not None and second is not None and first["metadata"]["uid"] != second["metadata"]["uid"]
    wait_for(lambda: call(serving, "again") == "two x", "the new one")
    assert [one.number for one in serving.client.revisions("again", NAMESPACE)] == [1]
    resources.delete("again")


@pytest.mark.parametrize("status", [429, 500])
def test_an_api_that_refuses_for_a_while_is_in_the_condition_and_nothing_is_half_made(
    serving: Platform, resources: Resources, api: CountingApi, status: int
) -> None:
    name = f"refused-{status}"
    api.refuse("POST", "/services", status)
    try:
        resources.apply(resources.resource(name))
        resources.until_reason(name, "Unavailable", "try again later")
        wait_for(lambda: resources.get("deployment", name) is None, "no half of it")
        with pytest.raises(StokerError, match="try again later"):
            serving.client.create(FunctionSpec("by-api", resources.image, NAMESPACE))
        assert resources.get("function", "by-api") is None
    finally:
        api.accept()
    resources.until_ready(name)
    resources.delete(name)


# The API


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
    wait_for(lambda: "asked" not in names(serving), "the list without it", 60)
    serving.client.create(spec)
    serving.client.remove("asked", NAMESPACE)
    assert "asked" not in names(serving)
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
    wait_for(lambda: call(serving, "moving") == "other", "the new image")
    first, second = serving.client.revisions("moving", NAMESPACE)
    assert first.digest != second.digest
    resources.until_ready("moving")
    serving.client.rollback("moving", 1, NAMESPACE)
    wait_for(lambda: call(serving, "moving") == "x x", "the image of before")
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
    plain = Platform(flags=FLAGS, KUBECONFIG=str(cluster.kubeconfig))
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


# Start


def test_without_the_crd_and_with_anothers_the_start_is_refused_with_the_reason(
    cluster: Cluster, resources: Resources, tmp_path: Path
) -> None:
    other = "foreign-test.stoker.dev"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"functions.{other}"},
        "spec": {
            "group": other,
            "scope": "Namespaced",
            "names": {"kind": "Function", "plural": "functions"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    assert f"the cluster has no CRD functions.{other}" in refusal(cluster, other)
    cluster.kubectl("apply", "-f", "-", input=json.dumps(definition))
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/functions.{other}")
        cluster.kubectl("apply", "-f", "-", input=json.dumps(resources.resource("x") | {"apiVersion": f"{other}/v1"}))
        before = cluster.kubectl("get", f"functions.{other}", "-A", "-o", "json")
        assert f"the CRD functions.{other} of the cluster is not Stoker's" in refusal(cluster, other)
        assert cluster.kubectl("get", f"functions.{other}", "-A", "-o", "json") == before
    finally:
        cluster.kubectl("delete", "crd", f"functions.{other}")


def refusal(cluster: Cluster, group: str) -> str:
    platform = Platform(flags=(*FLAGS, "--operator", "--crd-group", group), KUBECONFIG=str(cluster.kubeconfig))
    try:
        with pytest.raises(AssertionError):
            platform.start()
        return platform.log
    finally:
        platform.delete()


# Many


@pytest.mark.timeout(900)
def test_three_hundred_functions_at_zero_are_listed_at_once_and_cost_no_writes(
    cluster: Cluster, resources: Resources, tmp_path: Path
) -> None:
    many = Resources(cluster, resources.image, "stoker-operator-many")
    cluster.ensure_namespace(many.namespace)
    many.kubectl("create", "quota", "none", "--hard=pods=0")  # so that none starts before it is scaled to zero
    flags = ("--provider", "kubernetes", "--no-async", "--function-namespace", many.namespace)
    with CountingApi(cluster.kubeconfig, tmp_path) as api:
        platform = Platform(flags=(*flags, "--operator", "--crd-group", GROUP), KUBECONFIG=str(api.kubeconfig))
        try:
            platform.start()
            many.apply(*(many.resource(f"f{number}") for number in range(300)))

            def listed() -> int:
                return len(platform.client.functions(many.namespace))

            wait_for(lambda: listed() == 300, "300 functions", 300)
            many.kubectl("scale", "deployments", "--all", "--replicas=0")

            def at_zero() -> int:
                found = json.loads(many.kubectl("get", f"functions.{GROUP}", "-o", "json"))["items"]
                reasons = [one.get("status", {}).get("conditions", [{}])[0].get("reason") for one in found]
                return reasons.count("ScaledToZero")

            wait_for(lambda: at_zero() == 300, "300 functions at zero", 300)

            def writes_more() -> bool:
                before = len(api.writes())
                time.sleep(2)
                return len(api.writes()) > before

            wait_for(lambda: not writes_more(), "the last of what there is to tell of them", 60)
            times = []
            for _ in range(5):
                begun = time.monotonic()
                assert listed() == 300
                times.append(time.monotonic() - begun)
            print("listed in", [round(one * 1000) for one in times], "ms")
            assert sorted(times)[2] < 0.5
            assert watched(api.watches()) == ["deployments", "functions", "pods"]  # not one for each function

            platform.stop()
            api.forget()
            platform.start()  # looks at everything once, as it does every five minutes
            wait_for(lambda: any("/services?" in path for path in api.reads()), "the look at everything")
            wait_for(lambda: len(api.watches()) == 3, "the watches")
            assert listed() == 300
            assert api.writes() == []
            print(len(api.reads()), "reads:", api.reads())
            assert len(api.reads()) <= 6
        finally:
            print(platform.log)
            platform.delete()
            many.kubectl("delete", f"functions.{GROUP}", "--all")
            cluster.kubectl("delete", "namespace", many.namespace, "--wait=false")


def watched(paths: list[str]) -> list[str]:
    return sorted({path.partition("?")[0].rpartition("/")[2] for path in paths})
