"""The operator on a real cluster: what is done to Function resources and to what they own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_api import CountingApi
from operated_cluster import Resources, operated_namespace, operator, platform_flags
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import Conflict, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE, GROUP = "stoker-operator", "operator-test.stoker.dev"


@pytest.fixture(scope="module")
def resources(cluster: Cluster) -> Iterator[Resources]:
    with operated_namespace(cluster, NAMESPACE, GROUP) as one:
        yield one


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingApi]:
    with CountingApi(cluster.kubeconfig, tmp_path_factory.mktemp("api")) as one:
        yield one


@pytest.fixture(scope="module")
def serving(resources: Resources, api: CountingApi) -> Iterator[Platform]:
    with operator(resources, api.kubeconfig) as platform:
        yield platform


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
    assert resources.call(serving, "figlet") == "nothing x"
    assert "figlet" in resources.listed(serving)
    for kind in ("deployment", "service"):
        made = resources.get(kind, "figlet")
        assert made is not None
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Function", "figlet", True)
    resources.delete("figlet")
    resources.until_gone("figlet")
    wait_for(lambda: not resources.pods("figlet"), "the end of its pods", 60)
    wait_for(lambda: "figlet" not in resources.listed(serving), "the list without it")
    assert serving.call(f"figlet.{NAMESPACE}").status == 404


def test_an_edited_resource_changes_its_function_and_one_that_is_touched_does_not(
    serving: Platform, resources: Resources
) -> None:
    resources.apply(resources.resource("edited", environment={"GREETING": "one"}))
    resources.until_ready("edited")
    assert resources.call(serving, "edited") == "one x"
    resources.apply(resources.resource("edited", environment={"GREETING": "two"}))
    resources.until_ready("edited", generation=2)
    wait_for(lambda: resources.call(serving, "edited") == "two x", "the new version")
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
    wait_for(lambda: resources.call(serving, "back") == "two x", "an answer")
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
    wait_for(lambda: resources.call(serving, "edited-by-hand") == "asked x", "the asked answer")
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
    assert resources.call(serving, "fine") == "nothing x"
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
    assert resources.call(serving, "kept") == "old x"
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
    assert resources.call(serving, "undone") == "old x"
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
    wait_for(lambda: resources.call(serving, "undone") == "new x", "the mended version")
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
    wait_for(lambda: resources.call(serving, "again") == "two x", "the new one")
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
    platform = Platform(flags=platform_flags(NAMESPACE, group), KUBECONFIG=str(cluster.kubeconfig))
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
    many = Resources(cluster, resources.image, "stoker-operator-many", GROUP)
    cluster.ensure_namespace(many.namespace)
    many.kubectl("create", "quota", "none", "--hard=pods=0")  # so that none starts before it is scaled to zero
    with CountingApi(cluster.kubeconfig, tmp_path) as api:
        platform = Platform(flags=platform_flags(many.namespace, GROUP), KUBECONFIG=str(api.kubeconfig))
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
