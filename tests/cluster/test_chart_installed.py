"""The platform in a cluster, as the chart installs it from an image of this repository."""

from __future__ import annotations

import base64
import http.client
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_cluster import Cluster
from running_platform import REPOSITORY, wait_for

from stoker_sdk.client import ControlClient
from stoker_sdk.errors import Unauthorized
from stoker_sdk.function import FunctionSpec
from stoker_sdk.http_client import HttpClient

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

from rendered_chart import CHART  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NAMESPACE, FUNCTIONS = "stoker-installed", "stoker-installed-fn"
HANDLER = """
import time

def handle(event, context):
    if event.path == "/slow":
        time.sleep(1)
    return "echo " + event.body.decode()
"""
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 30Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: {path}}}
"""


class Installed:
    """The release, and who talks to it through the gateway's Service."""

    def __init__(self, cluster: Cluster, helm: Any, values: dict[str, Any]) -> None:
        self.cluster = cluster
        self._helm = helm
        self._values = values
        self.release = helm.install(CHART, "stoker", values, wait="watcher", timeout=300)
        self.address = self.kubectl("get", "service", "gateway", "-o", "jsonpath={.spec.clusterIP}")
        self.client = self.log_in(self.password())

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments)

    def password(self) -> str:
        data = json.loads(self.kubectl("get", "secret", "basic-auth", "-o", "json"))["data"]
        return base64.b64decode(data["basic-auth-password"]).decode()

    def log_in(self, password: str) -> ControlClient:
        authorization = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        return ControlClient(HttpClient(f"http://{self.address}:8080", authorization, timeout=30))

    def upgrade(self, values: dict[str, Any]) -> None:
        self._helm.upgrade(CHART, "stoker", self._values | values, wait="watcher", timeout=300)

    def call(self, target: str, body: bytes) -> tuple[int, str, str]:
        """Status, text, call id; by a connection of its own."""
        connection = http.client.HTTPConnection(self.address, 8080, timeout=60)
        try:
            connection.request("POST", target, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("X-Call-Id") or ""
        finally:
            connection.close()


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Installed]:
    image = f"{cluster.registry}/chart-stoker:test"
    cluster.docker("build", "-q", "--build-arg", f"PYTHON_IMAGE={cluster.base_image}", "-t", image, str(REPOSITORY))
    cluster.docker("push", "-q", image)
    repository, _, tag = image.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Always"},
        "functions": {"namespaces": [FUNCTIONS]},
        "gateway": {"drainSeconds": 15},
        "nats": {"clusterIP": "10.96.12.34"},  # the cluster of the tests has no DNS
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=NAMESPACE) as helm,
    ):
        Path(folder).chmod(0o777)  # Kubernetes gives the folder of a node to nobody
        cluster.kubectl("apply", "-f", "-", input=VOLUME.format(name=NAMESPACE, path=folder))
        cluster.ensure_namespace(NAMESPACE)
        try:
            yield Installed(cluster, helm, values)
        finally:
            print(cluster.kubectl("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=stoker", "--tail=50"))
            helm.uninstall("stoker")
            cluster.kubectl("delete", "namespace", NAMESPACE, FUNCTIONS, "--ignore-not-found")
            cluster.kubectl("delete", "persistentvolume", NAMESPACE)


@pytest.fixture(scope="module")
def echo(installed: Installed) -> str:
    """A function. Its tag is taken as it is: the registry of the tests is not to be reached by the names of pods."""
    image = installed.cluster.function("chart-echo", HANDLER)
    settings = {"stoker.dev/unpinned": "true", "stoker.dev/concurrency": "1"}
    installed.client.create(FunctionSpec("echo", image, FUNCTIONS, annotations=settings))
    name = f"echo.{FUNCTIONS}"
    wait_for(lambda: installed.client.function("echo", FUNCTIONS).available_replicas == 1, "the function", 60)
    return name


def test_a_function_answers_through_the_gateways_service(installed: Installed, echo: str) -> None:
    assert installed.call(f"/function/{echo}", b"hello")[:2] == (200, "echo hello")
    with pytest.raises(Unauthorized):
        installed.log_in("wrong").functions(FUNCTIONS)


def test_async_calls_survive_the_end_of_the_broker(installed: Installed, echo: str) -> None:
    """Three calls of a second each, one at a time: NATS ends in the middle of them."""
    answers = [installed.call(f"/async-function/{echo}/slow", b"later") for _ in range(3)]
    assert [status for status, _, _ in answers] == [202] * 3
    installed.kubectl("delete", "pod", "stoker-nats-0", "--grace-period=0", "--force")
    ids = [id for _, _, id in answers]

    def states() -> set[str]:
        try:
            return {installed.client.call_status(id).state for id in ids}
        except Exception as error:  # the broker is away
            return {str(error)}

    wait_for(lambda: states() == {"done"}, "the calls' outcomes", 120)


def test_an_upgrade_of_the_gateway_fails_no_call_and_restarts_no_function(installed: Installed, echo: str) -> None:
    function = ("get", "pods", "-n", FUNCTIONS, "-o", "jsonpath={.items[*].metadata.uid}")
    pods, gateway = installed.cluster.kubectl(*function), installed.kubectl("get", "pods", "-o", "name")
    password = installed.password()
    seen: Counter[int | str] = Counter()
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                seen[installed.call(f"/function/{echo}", b"x")[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[repr(error)] += 1

    caller = threading.Thread(target=call)
    caller.start()
    try:
        installed.upgrade({"gateway": {"drainSeconds": 15, "proxies": 1}})
        left = gateway.split()
        wait_for(
            lambda: len(set(left) & set(installed.kubectl("get", "pods", "-o", "name").split())) == 1,
            "the end of the old gateway",
            200,
        )
    finally:
        stop.set()
        caller.join()
    assert set(seen) == {200}
    assert (installed.cluster.kubectl(*function), installed.password()) == (pods, password)
