"""`stoker serve --provider kubernetes` beside a real cluster: calls go from its proxies straight to pods."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_relay import ApiRelay
from registry import PASSWORD, USER, RunningRegistry
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import BadInput, Conflict, NotFound, Unavailable
from stoker_sdk.function import FunctionSpec
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "openfaas-fn"
ECHO = """
import os, socket, time

def handle(event, context):
    if event.path == "/secret":
        return open("/var/openfaas/secrets/" + event.body.decode()).read()
    if event.path == "/who":
        return f"{os.getuid()} {socket.gethostname()}"
    if event.path == "/slow":
        time.sleep(float(event.body))
    return "echo " + event.body.decode()
"""
VERSION = "def handle(req):\n    return {!r}\n"


@pytest.fixture(scope="module")
def relay(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiRelay]:
    with ApiRelay(cluster.kubeconfig, tmp_path_factory.mktemp("relay")) as one:
        yield one


@pytest.fixture(scope="module")
def serving(cluster: Cluster, relay: ApiRelay) -> Iterator[Platform]:
    cluster.ensure_namespace(NAMESPACE)
    platform = Platform(proxies=2, flags=("--provider", "kubernetes", "--no-async"), KUBECONFIG=str(relay.kubeconfig))
    try:
        yield platform.start()
        for status in platform.client.functions():
            platform.client.remove(status.name)
    finally:
        print(platform.log)
        platform.delete()


@pytest.fixture(scope="module")
def echo(cluster: Cluster) -> str:
    return cluster.function("serve-echo", ECHO)


def objects(cluster: Cluster, kind: str, name: str) -> list[dict[str, Any]]:
    found = cluster.kubectl("get", kind, "-n", NAMESPACE, "-l", f"faas_function={name}", "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def pods(cluster: Cluster, name: str) -> list[str]:
    live = [one for one in objects(cluster, "pods", name) if "deletionTimestamp" not in one["metadata"]]
    return sorted(one["metadata"]["name"] for one in live)


@contextmanager
def load(platform: Platform, name: str) -> Iterator[Counter[int]]:
    """Calls one after the other, of two callers, as long as this is open; counts their statuses."""
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            seen[platform.call(name, b"x").status] += 1

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        yield seen
    finally:
        stop.set()
        for caller in callers:
            caller.join()


def test_a_function_is_one_deployment_and_one_service_and_answers(
    serving: Platform, cluster: Cluster, echo: str
) -> None:
    serving.deploy_image("greet", echo)
    answer = serving.call("greet", b"hello")
    assert (answer.status, answer.text) == (200, "echo hello")
    assert [len(objects(cluster, kind, "greet")) for kind in ("deployments", "services", "pods")] == [1, 1, 1]
    user, host = serving.call("greet", path="/who").text.split()
    assert (user, host) == ("12000", pods(cluster, "greet")[0])
    assert [line.text for line in serving.logs("greet") if "POST" in line.text]


def test_the_services_address_answers_too(serving: Platform, cluster: Cluster, echo: str) -> None:
    serving.deploy_image("by-service", echo)
    addresses = ("get", "endpoints", "by-service", "-n", NAMESPACE, "-o", "jsonpath={.subsets[*].addresses[*].ip}")
    wait_for(lambda: cluster.kubectl(*addresses), "the cluster's own word that it is ready")
    path = f"/api/v1/namespaces/{NAMESPACE}/services/by-service:8080/proxy/"
    assert cluster.kubectl("get", "--raw", path) == "echo "


def test_the_image_is_pinned_and_the_user_sees_what_he_wrote(serving: Platform, cluster: Cluster) -> None:
    one = cluster.function("serve-version", VERSION.format("one"))
    two = cluster.function("serve-version", VERSION.format("two"))
    tag = cluster.tag(one, "serve-moving:latest")
    first = serving.deploy_image("moving", tag)
    before = pods(cluster, "moving")
    held = objects(cluster, "deployments", "moving")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert held.startswith(f"{cluster.registry}/serve-moving@sha256:")
    assert serving.status("moving").image == tag
    assert serving.call("moving").text == "one"

    cluster.kubectl("rollout", "status", "deployment/moving", "-n", NAMESPACE)  # then the cluster writes no status
    written = objects(cluster, "deployments", "moving")[0]["metadata"]["resourceVersion"]
    assert serving.deploy_image("moving", tag) == first
    assert objects(cluster, "deployments", "moving")[0]["metadata"]["resourceVersion"] == written
    assert pods(cluster, "moving") == before

    cluster.tag(two, "serve-moving:latest")
    with load(serving, "moving") as seen:
        assert serving.deploy_image("moving", tag) == first + 1
        wait_for(lambda: serving.call("moving").text == "two", "the new version")
        wait_for(lambda: not set(pods(cluster, "moving")) & set(before), "the end of the old pod", 60)
    assert set(seen) == {200}


def test_an_image_that_does_not_exist_is_refused_and_leaves_nothing(serving: Platform, cluster: Cluster) -> None:
    with pytest.raises(BadInput, match=r"does not exist in localhost:\d+"):
        serving.client.create(FunctionSpec("nothing", f"{cluster.registry}/nothing:1"))
    assert objects(cluster, "deployments", "nothing") == objects(cluster, "services", "nothing") == []


def test_a_registry_that_cannot_be_reached_is_named_and_unpinned_goes_on(serving: Platform, cluster: Cluster) -> None:
    image = "localhost:1/greet:1"
    with pytest.raises(Unavailable, match=r"localhost:1 cannot be asked.*--unpinned"):
        serving.client.create(FunctionSpec("apart", image))
    serving.client.create(FunctionSpec("apart", image, annotations={"stoker.dev/unpinned": "true"}))
    container = objects(cluster, "deployments", "apart")[0]["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == (image, "Always")
    assert serving.wait_failed("apart").code == "image-pull"
    serving.client.remove("apart")


def test_what_the_cluster_refuses_is_told_and_leaves_nothing(serving: Platform, cluster: Cluster, echo: str) -> None:
    from stoker_sdk.function import Resources

    wrong = FunctionSpec("wrong", echo, limits=Resources(memory="1Mi"), requests=Resources(memory="1Gi"))
    with pytest.raises(BadInput, match="must be less than or equal to memory limit"):
        serving.client.create(wrong)
    with pytest.raises(BadInput, match="begin it with a letter"):
        serving.client.create(FunctionSpec("1st", echo))
    assert objects(cluster, "deployments", "wrong") == objects(cluster, "services", "wrong") == []


def test_a_deployment_of_somebody_else_is_never_taken_over(serving: Platform, cluster: Cluster, echo: str) -> None:
    cluster.kubectl("create", "deployment", "foreign", "-n", NAMESPACE, f"--image={echo}", "--replicas=0")
    try:
        with pytest.raises(Conflict, match="no function of this platform"):
            serving.client.create(FunctionSpec("foreign", echo))
        with pytest.raises(NotFound):
            serving.client.remove("foreign")
        assert "foreign" not in [status.name for status in serving.client.functions()]
    finally:
        cluster.kubectl("delete", "deployment", "foreign", "-n", NAMESPACE)


def test_a_service_of_somebody_else_takes_the_deployment_back(serving: Platform, cluster: Cluster, echo: str) -> None:
    cluster.kubectl("create", "service", "clusterip", "taken", "-n", NAMESPACE, "--tcp=80:80")
    try:
        with pytest.raises(Conflict, match="service 'taken'"):
            serving.client.create(FunctionSpec("taken", echo))
        assert objects(cluster, "deployments", "taken") == []
    finally:
        cluster.kubectl("delete", "service", "taken", "-n", NAMESPACE)


def test_a_redeploy_keeps_the_count_inside_its_bounds(serving: Platform, cluster: Cluster, echo: str) -> None:
    bounds = {"com.openfaas.scale.min": "1", "com.openfaas.scale.max": "3"}
    serving.deploy_image("bounded", echo, labels=bounds)
    serving.client.scale("bounded", 2)
    serving.deploy_image("bounded", echo, labels=bounds, env_vars={"A": "1"})
    assert objects(cluster, "deployments", "bounded")[0]["spec"]["replicas"] == 2
    serving.deploy_image("bounded", echo, labels=bounds | {"com.openfaas.scale.max": "1"}, env_vars={"A": "1"})
    assert objects(cluster, "deployments", "bounded")[0]["spec"]["replicas"] == 1
    serving.client.remove("bounded")


def test_secrets_are_made_by_the_api_and_read_as_files(serving: Platform, cluster: Cluster, echo: str) -> None:
    content = b"a\x00b\xff\n"
    serving.client.create_secret(Secret("token", raw_value=content))
    with pytest.raises(Conflict):
        serving.client.create_secret(Secret("token", raw_value=content))
    assert [secret.name for secret in serving.client.secrets()] == ["token"]
    serving.client.update_secret(Secret("token", value="text"))
    serving.deploy_image("reader", echo, secrets=["token"])
    assert serving.call("reader", b"token", path="/secret").text == "text"
    with pytest.raises(BadInput, match="secret 'nobody' does not exist"):
        serving.client.create(FunctionSpec("reader2", echo, secrets=["nobody"]))
    serving.client.remove("reader")
    serving.client.remove_secret("token")
    with pytest.raises(NotFound):
        serving.client.remove_secret("token")


def test_a_private_registry_is_pulled_from_with_a_secret_and_a_wrong_one_is_told_at_once(
    serving: Platform, cluster: Cluster, echo: str, tmp_path: Path
) -> None:
    private = RunningRegistry(tmp_path, password=True)
    try:
        image = f"{private.address}/private/greet:1"
        cluster.push_as(echo, image, USER, PASSWORD)
        for name, password in (("pull", PASSWORD), ("mistaken", "wrong")):
            login = (f"--docker-server={private.address}", f"--docker-username={USER}", f"--docker-password={password}")
            cluster.kubectl("create", "secret", "docker-registry", name, "-n", NAMESPACE, *login)
        begun = time.monotonic()
        with pytest.raises(BadInput, match=f"{private.address} refuses the credentials of secret 'mistaken'"):
            serving.client.create(FunctionSpec("private", image, secrets=["mistaken"]))
        with pytest.raises(BadInput, match=f"{private.address} shows private/greet to nobody"):
            serving.client.create(FunctionSpec("private", image))
        assert time.monotonic() - begun < 10
        serving.deploy_image("private", image, secrets=["pull"])
        assert serving.call("private", b"x").text == "echo x"
        serving.client.remove("private")
    finally:
        private.stop()
        cluster.kubectl("delete", "secret", "pull", "mistaken", "-n", NAMESPACE, "--ignore-not-found")


def test_calls_ask_nothing_of_the_api(serving: Platform, relay: ApiRelay, echo: str) -> None:
    serving.deploy_image("quiet", echo)
    before, begun = relay.sent, time.monotonic()
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: serving.call("quiet", b"x").status, range(1000)))
    assert answers == [200] * 1000
    renewals = (time.monotonic() - begun) / 1.5 + 1  # of the leader's Lease, whether there are calls or not
    assert relay.sent - before <= renewals * 2500


def test_without_the_api_calls_go_on_and_writes_are_unavailable(
    serving: Platform, relay: ApiRelay, cluster: Cluster, echo: str
) -> None:
    serving.deploy_image("lasting", echo)
    relay.cut()
    try:
        with load(serving, "lasting") as seen:
            with pytest.raises(Unavailable, match="Kubernetes API cannot be reached"):
                serving.client.scale("lasting", 2)
            with pytest.raises(Unavailable):
                serving.client.create(FunctionSpec("lasting2", echo))
            assert "lasting" in [status.name for status in serving.client.functions()]
            wait_for(lambda: sum(seen.values()) > 50, "calls")
        assert set(seen) == {200}
    finally:
        relay.mend()
    cluster.kubectl("scale", "deployment", "lasting", "-n", NAMESPACE, "--replicas=2")
    wait_for(lambda: serving.status("lasting").available_replicas == 2, "what happened meanwhile", 60)
    serving.client.remove("lasting")


def test_a_hundred_calls_wake_a_function_with_one_write(serving: Platform, cluster: Cluster, echo: str) -> None:
    serving.deploy_image("sleeper", echo)
    serving.client.scale("sleeper", 0)
    wait_for(lambda: not pods(cluster, "sleeper"), "no pod")
    generation = objects(cluster, "deployments", "sleeper")[0]["metadata"]["generation"]
    with ThreadPoolExecutor(100) as callers:
        answers = list(callers.map(lambda _: serving.call("sleeper", b"x").status, range(100)))
    assert answers == [200] * 100
    assert objects(cluster, "deployments", "sleeper")[0]["metadata"]["generation"] == generation + 1
    serving.client.remove("sleeper")


def test_a_deleted_pod_fails_no_call(serving: Platform, cluster: Cluster, echo: str) -> None:
    serving.deploy_image("steady", echo)
    serving.client.scale("steady", 2)
    wait_for(lambda: serving.status("steady").available_replicas == 2, "two replicas", 60)
    with ThreadPoolExecutor(4) as callers, load(serving, "steady") as seen:
        slow = [callers.submit(serving.call, "steady", b"6", path="/slow") for _ in range(4)]
        time.sleep(1)  # they run now
        cluster.kubectl("delete", "pod", pods(cluster, "steady")[0], "-n", NAMESPACE, "--wait=false")
        assert [one.result().status for one in slow] == [200] * 4
        wait_for(lambda: serving.status("steady").available_replicas == 2, "its successor", 60)
    assert set(seen) == {200}
    serving.client.remove("steady")


def test_scaling_up_and_down_under_load_fails_no_call(serving: Platform, cluster: Cluster, echo: str) -> None:
    serving.deploy_image("elastic", echo)
    with load(serving, "elastic") as seen:
        for count in (3, 1):
            serving.client.scale("elastic", count)
            wait_for(lambda count=count: len(pods(cluster, "elastic")) == count, "as many pods", 60)
            wait_for(lambda count=count: serving.status("elastic").available_replicas == count, "as many targets", 60)
    assert set(seen) == {200}
    serving.client.remove("elastic")


def test_a_restart_of_control_finds_everything_again(serving: Platform, cluster: Cluster, echo: str) -> None:
    serving.deploy_image("found", echo)
    before = pods(cluster, "found")
    with load(serving, "found") as seen:
        serving.kill("control")
        serving.wait_until_it_answers()
        wait_for(lambda: serving.status("found").available_replicas == 1, "its replica")
    assert set(seen) == {200}
    assert pods(cluster, "found") == before
    serving.client.remove("found")


def test_an_update_that_cannot_start_leaves_the_old_one_serving_with_the_reason(
    serving: Platform, cluster: Cluster, echo: str
) -> None:
    broken = cluster.function("serve-broken", "raise ImportError('broken on purpose')\n")
    serving.deploy_image("fragile", echo)
    with load(serving, "fragile") as seen:
        revision = serving.deploy_image("fragile", broken, wait=False)
        failed = serving.wait_failed("fragile", revision)
    assert "broken on purpose" in failed.message + "".join(failed.output)
    assert failed.serving == failed.rollback_to == revision - 1
    assert set(seen) == {200}
    serving.client.remove("fragile")
