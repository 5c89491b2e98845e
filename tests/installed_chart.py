"""The chart installed into the test cluster, from an image of this repository, and what tests ask of it.

with installed_chart(cluster, "stoker-kills", {"gateway": {"replicas": 2}}) as installed:
    name = installed.deploy("echo", image)
    assert installed.call(f"/function/{name}", b"hello")[0] == 200

The fixture `installed` of conftest.py is one release for the whole session: use names of your own.
Importing it skips the tests of a machine that has no wheel of Helm's library.
"""

from __future__ import annotations

import base64
import http.client
import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_cluster import Cluster
from running_platform import REPOSITORY, Answer, wait_for

from stoker_sdk.client import ControlClient
from stoker_sdk.function import Condition, FunctionSpec
from stoker_sdk.http_client import HttpClient

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

from rendered_chart import CHART  # noqa: E402

_VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}-{part}}}
spec:
  capacity: {{storage: 30Gi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{namespace: {name}, name: data-stoker-{part}-0}}
  hostPath: {{path: {path}}}
"""
_PARTS = ("nats", "builder")
"""The pods that have a volume."""


class Installed:
    """The release, and who talks to it through the gateway's Service. Functions live in `functions`."""

    def __init__(self, cluster: Cluster, helm: Any, namespace: str, values: dict[str, Any]) -> None:
        self.cluster = cluster
        self.namespace, self.functions = namespace, f"{namespace}-fn"
        self._helm = helm
        self._values = values
        self._install()

    def _install(self) -> None:
        self.release = self._helm.install(CHART, "stoker", self._values, wait="watcher", timeout=300)
        self.address = self.kubectl("get", "service", "gateway", "-o", "jsonpath={.spec.clusterIP}")
        self.url = f"http://{self.address}:8080"
        self.client = self.log_in(self.password())

    def kubectl(self, *arguments: str) -> str:
        """In the namespace of the release, unless the arguments name another."""
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    def password(self) -> str:
        data = json.loads(self.kubectl("get", "secret", "basic-auth", "-o", "json"))["data"]
        return base64.b64decode(data["basic-auth-password"]).decode()

    def log_in(self, password: str) -> ControlClient:
        authorization = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        return ControlClient(HttpClient(self.url, authorization, timeout=30))

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """The values are laid over those of the installation, and stay."""
        self._values = _merged(self._values, values)
        self._helm.upgrade(CHART, "stoker", self._values, wait="watcher", timeout=300)

    def install_again(self) -> None:
        """After an uninstall, with the same values."""
        self._helm.uninstall("stoker")
        self._install()

    def gateways(self) -> list[str]:
        """The names of the gateway's pods, those that end included."""
        label = "app.kubernetes.io/component=gateway"
        return self.kubectl("get", "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.name}").split()

    def deploy(self, name: str, image: str, replicas: int = 1, **settings: str) -> str:
        """A function, new or changed, with settings of ours, and all its replicas ready: NAME.NAMESPACE."""
        spec = FunctionSpec(
            name,
            self.cluster.for_pods(image),
            self.functions,
            labels={"com.openfaas.scale.min": str(replicas)},
            annotations={f"stoker.dev/{key}": value for key, value in settings.items()},
        )
        known = {status.name for status in self.client.functions(self.functions)}
        revision = self.client.update(spec) if name in known else self.client.create(spec)
        wait_for(lambda: self._is_ready(name, revision), f"function {name}", 120)
        return f"{name}.{self.functions}"

    def _is_ready(self, name: str, revision: int) -> bool:
        condition = self.condition(name)
        assert condition.state != "failed", f"{name}: {condition.message}\n{condition.output}"
        return condition.revision >= revision and condition.state == "ready"

    def condition(self, name: str) -> Condition:
        condition = self.client.function(name, self.functions).stoker
        assert condition is not None
        return condition

    def pods(self, name: str, *, ending: bool = False) -> list[str]:
        """The names of a function's pods: of those that are not ending, or of all."""
        found = self.kubectl("get", "pods", "-n", self.functions, "-l", f"faas_function={name}", "-o", "json")
        pods = [one["metadata"] for one in json.loads(found)["items"]]
        return sorted(one["name"] for one in pods if ending or "deletionTimestamp" not in one)

    def call(self, target: str, body: bytes) -> tuple[int, str, str]:
        """Status, text, call id; by a connection of its own."""
        answer = self.request("POST", target, body)
        return answer.status, answer.text, answer.headers.get("x-call-id", "")

    def request(self, method: str, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Any request of a gateway, without credentials."""
        connection = http.client.HTTPConnection(self.address, 8080, timeout=60)
        try:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            fields = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()


@contextmanager
def installed_chart(
    cluster: Cluster,
    namespace: str,
    values: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Installed]:
    """A release in this namespace, with its functions in NAMESPACE-fn; both are gone afterwards. `secrets` are there
    before it.
    """
    repository = f"{cluster.registry}/{namespace}"
    _make_image(cluster, f"{repository}:test", "gateway")
    defaults: dict[str, Any] = {
        "image": {"repository": repository, "tag": "test", "pullPolicy": "Always"},
        "functions": {"namespaces": [f"{namespace}-fn"]},
        "registries": {"plain": [cluster.pod_registry]},
        "gateway": {"drainSeconds": 15},
        # The cluster of the tests has no DNS.
        "nats": {"clusterIP": _service_address(namespace, "nats")},
    }
    if (values or {}).get("builder", {}).get("enabled"):
        _make_image(cluster, f"{repository}-builder:test", "builder")
        defaults["builder"] = {
            "image": {"repository": f"{repository}-builder"},
            "clusterIP": _service_address(namespace, "builder"),
        }
        defaults["gateway"]["service"] = {"clusterIP": _service_address(namespace, "gateway")}
    with (
        tempfile.TemporaryDirectory() as folder,
        helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=namespace) as helm,
    ):
        _remove(cluster, namespace)  # what a killed run has left
        for part in _PARTS:
            path = Path(folder, part)
            path.mkdir()
            path.chmod(0o777)  # Kubernetes gives the folder of a node to nobody
            cluster.kubectl("apply", "-f", "-", input=_VOLUME.format(name=namespace, part=part, path=path))
        cluster.ensure_namespace(namespace)
        for name, texts in (secrets or {}).items():
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(texts)}
            cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(secret))
        try:
            yield Installed(cluster, helm, namespace, _merged(defaults, values or {}))
        finally:
            try:
                print(cluster.kubectl("logs", "-n", namespace, "-l", "app.kubernetes.io/name=stoker", "--tail=50"))
            except AssertionError as error:  # one has just ended
                print(error)
            helm.uninstall("stoker")
            for one in (namespace, f"{namespace}-fn"):  # nobody calls any more, so nothing needs to drain
                cluster.kubectl("delete", "deployments", "--all", "-n", one)
                cluster.kubectl("delete", "pods", "--all", "-n", one, "--grace-period=0", "--force")
            _remove(cluster, namespace)


def _remove(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("delete", "namespace", namespace, f"{namespace}-fn", "--ignore-not-found")
    cluster.kubectl("delete", "persistentvolume", *(f"{namespace}-{part}" for part in _PARTS), "--ignore-not-found")


def _make_image(cluster: Cluster, image: str, target: str) -> None:
    base = f"PYTHON_IMAGE={cluster.base_image}"
    cluster.docker("build", "-q", "--build-arg", base, "--target", target, "-t", image, str(REPOSITORY))
    cluster.docker("push", "-q", image)


def _service_address(namespace: str, service: str) -> str:
    """One that a service of another release hardly has."""
    number = zlib.crc32(f"{namespace}/{service}".encode())
    return f"10.96.{number % 200 + 20}.{number // 200 % 200 + 20}"


def _merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Sections within sections, as Helm does it."""
    merged = dict(values)
    for key, value in others.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
