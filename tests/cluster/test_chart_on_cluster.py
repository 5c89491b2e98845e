"""The chart before a real API server: it takes every object, and what must stay at an upgrade stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from running_cluster import Cluster

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

from rendered_chart import BUILDER, CHART, by_name  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE, FUNCTIONS, MADE = "stoker-chart", "stoker-chart-fn", "stoker-chart-made"
RELEASE = "stoker"
GROUP = "chart-test.stoker.dev"
CRD = f"functions.{GROUP}"
VALUES: dict[str, Any] = {
    "image": {"repository": "localhost:1/stoker"},  # nobody needs to run here
    "functions": {
        "namespaces": [FUNCTIONS, MADE],
        "quota": {"pods": "100"},
        "limitRange": [{"type": "Container", "default": {"memory": "1Gi"}}],
    },
    "ingress": {"enabled": True, "host": "f.example.org", "tls": {"enabled": True, "issuer": "ca"}},
    "metrics": {"dashboards": {"enabled": True}},
}


@pytest.fixture(scope="module")
def helm(cluster: Cluster) -> Iterator[Any]:
    for namespace in (NAMESPACE, FUNCTIONS):
        cluster.ensure_namespace(namespace)
    with helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=NAMESPACE) as config:
        yield config
    for namespace in (NAMESPACE, FUNCTIONS, MADE):
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def installed(helm: Any) -> Iterator[Any]:
    yield helm.install(CHART, RELEASE, VALUES)
    helm.uninstall(RELEASE)


def secret(cluster: Cluster, name: str) -> dict[str, str]:
    data: dict[str, str] = json.loads(cluster.kubectl("get", "secret", name, "-n", NAMESPACE, "-o", "json"))["data"]
    return data


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
        {"nats": {"enabled": False, "url": "tls://nats.example.org:4222", "caSecret": "ca", "auth": {"secret": "s"}}},
        {"gateway": {"service": {"type": "NodePort", "nodePort": 31112}}, "nats": {"storage": {"enabled": False}}},
        {"operator": {"enabled": True, "group": GROUP}},
        {"builder": BUILDER | {"github": {"secret": "github", "owners": ["ada"]}}},
    ],
)
def test_the_server_takes_every_object(cluster: Cluster, helm: Any, values: dict[str, Any]) -> None:
    """A dry run makes no namespace, so all objects are in the two that are there."""
    functions = {"functions": VALUES["functions"] | {"namespaces": [FUNCTIONS]}}
    release = helm.install(CHART, "dry", VALUES | functions | values, dry_run="server")
    documents = by_name(release["manifest"], NAMESPACE)
    assert f"Namespace/{FUNCTIONS}" not in documents, "it is there, and somebody else's"
    assert documents["PodDisruptionBudget/dry-stoker-gateway"]["apiVersion"].startswith("policy/v1")
    done = cluster.kubectl("apply", "--dry-run=server", "-f", "-", input=release["manifest"])
    assert done.count("created (server dry run)") == len(documents)


def test_an_upgrade_keeps_what_was_made_once(cluster: Cluster, helm: Any, installed: Any) -> None:
    assert installed["status"] == "deployed"
    before = [secret(cluster, name) for name in ("basic-auth", "stoker-nats")]
    pods = ("get", "deployment,statefulset", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.generation}")
    generations = cluster.kubectl(*pods)
    helm.upgrade(CHART, RELEASE, VALUES)
    assert [secret(cluster, name) for name in ("basic-auth", "stoker-nats")] == before
    assert cluster.kubectl(*pods) == generations


@pytest.mark.parametrize(
    ("verb", "what", "where", "allowed"),
    [
        ("create", "deployments.apps", FUNCTIONS, True),
        ("watch", "pods", MADE, True),
        ("get", "pods/log", FUNCTIONS, True),
        ("create", "pods", FUNCTIONS, False),
        ("get", "secrets", NAMESPACE, False),
        ("create", "deployments.apps", NAMESPACE, False),
        ("list", "secrets", "kube-system", False),
        ("list", "nodes", "", False),
        ("create", "namespaces", "", False),
    ],
)
def test_the_gateway_may_do_what_it_needs(
    cluster: Cluster, installed: Any, verb: str, what: str, where: str, allowed: bool
) -> None:
    place = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    resource, _, subresource = what.partition("/")
    resource, _, group = resource.partition(".")
    asked = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": where}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{NAMESPACE}:stoker-gateway", "resourceAttributes": asked},
    }
    told = json.loads(cluster.kubectl("create", "--raw", place, "-f", "-", input=json.dumps(review)))
    assert told["status"]["allowed"] is allowed


def test_the_crd_stays_with_its_functions_and_another_vendors_is_left_alone(cluster: Cluster, helm: Any) -> None:
    values = VALUES | {"operator": {"enabled": True, "group": GROUP}, "functions": {"namespaces": [MADE + "-3"]}}
    values |= {
        "ingress": {"enabled": False},
        "gateway": {"service": {"name": "third"}},
        "auth": {"existingSecret": "x"},
    }
    function = {
        "apiVersion": f"{GROUP}/v1alpha2",
        "kind": "Function",
        "metadata": {"name": "kept", "namespace": FUNCTIONS},
        "spec": {"name": "kept", "image": "x"},
    }
    try:
        helm.install(CHART, "third", values)
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
        cluster.kubectl("apply", "-f", "-", input=json.dumps(function))
        helm.upgrade(CHART, "third", values)
        helm.uninstall("third")
        kept = json.loads(cluster.kubectl("get", CRD, "kept", "-n", FUNCTIONS, "-o", "json"))
        assert (kept["apiVersion"], kept["spec"]) == (f"{GROUP}/v1", function["spec"])
        helm.install(CHART, "third", values)  # it finds its own again
        helm.uninstall("third")
        before = cluster.kubectl("get", "crd", CRD, "-o", "jsonpath={.metadata.resourceVersion}")
        with pytest.raises(
            helm_python.HelmError, match=r"is installed already, and not by this release.*operator\.group"
        ):
            helm.install(CHART, "fourth", values)
        assert cluster.kubectl("get", "crd", CRD, "-o", "jsonpath={.metadata.resourceVersion}") == before
        assert not cluster.kubectl("get", "deployments", "-n", NAMESPACE, "-l", "app.kubernetes.io/instance=fourth")
    finally:
        cluster.kubectl("delete", "crd", CRD, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", MADE + "-3", "--ignore-not-found", "--wait=false")


def test_an_uninstall_leaves_namespaces_of_functions(cluster: Cluster, helm: Any) -> None:
    """After the others: `installed` is uninstalled when the module ends, and this release is another."""
    other = {"functions": {"namespaces": [MADE + "-2"]}, "networkPolicy": {"enabled": False}}
    helm.install(
        CHART,
        "second",
        VALUES
        | other
        | {
            "auth": {"existingSecret": "mine"},
            "ingress": {"enabled": False},
            "gateway": {"service": {"name": "second"}},
        },
    )
    helm.uninstall("second")
    try:
        assert cluster.kubectl("get", "namespace", MADE + "-2", "-o", "jsonpath={.status.phase}") == "Active"
        assert not cluster.kubectl("get", "role", "-n", MADE + "-2", "-o", "name")
    finally:
        cluster.kubectl("delete", "namespace", MADE + "-2", "--wait=false")
