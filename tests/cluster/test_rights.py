"""The provider under a service account with the rights of roles.yml alone; and what these rights do not cover."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from function_crd import function_crd
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.function import FunctionSpec
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "stoker-rights"
GROUP = "rights-test.stoker.dev"
HANDLER = "def handle(req):\n    return open('/var/openfaas/secrets/token').read()\n"


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Access of a service account that has the Role, in a namespace of its own."""
    cluster.ensure_namespace(NAMESPACE)
    role = (Path(__file__).parent / "roles.yml").read_text()
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=role)
    token = cluster.account(NAMESPACE, "stoker")
    cluster.kubectl(
        "create", "rolebinding", "stoker", "-n", NAMESPACE, "--role=stoker", f"--serviceaccount={NAMESPACE}:stoker"
    )
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("rights") / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    yield path
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_role_is_enough_for_all_that_the_api_does(cluster: Cluster, kubeconfig: Path) -> None:
    image = cluster.function("rights", HANDLER)
    flags = ("--provider", "kubernetes", "--no-async", "--function-namespace", NAMESPACE)
    platform = Platform(flags=flags, KUBECONFIG=str(kubeconfig))
    try:
        client = platform.start().client
        client.create_secret(Secret("token", NAMESPACE, "first"))
        client.update_secret(Secret("token", NAMESPACE, "second"))
        assert [secret.name for secret in client.secrets(NAMESPACE)] == ["token"]
        client.create(FunctionSpec("reader", image, NAMESPACE, secrets=["token"]))
        wait_for(lambda: client.function("reader", NAMESPACE).available_replicas == 1, "the function", 60)
        assert platform.call(f"reader.{NAMESPACE}").text == "second"
        client.update(FunctionSpec("reader", image, NAMESPACE, secrets=["token"], annotations={"note": "x"}))
        client.scale("reader", 0, NAMESPACE)
        assert platform.call(f"reader.{NAMESPACE}").text == "second"
        client.remove("reader", NAMESPACE)
        client.remove_secret("token", NAMESPACE)
        assert "cannot" not in platform.log
    finally:
        print(platform.log)
        platform.delete()


def test_with_the_operators_role_it_is_enough_for_resources_too(cluster: Cluster, kubeconfig: Path) -> None:
    image = cluster.function("rights", HANDLER)
    further = (Path(__file__).parent / "roles-operator.yml").read_text().replace("openfaas.com", GROUP)
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=further)
    cluster.kubectl(
        *("create", "rolebinding", "stoker-operator", "-n", NAMESPACE, "--role=stoker-operator"),
        f"--serviceaccount={NAMESPACE}:stoker",
    )
    flags = ("--provider", "kubernetes", "--no-async", "--function-namespace", NAMESPACE)
    platform = Platform(flags=(*flags, "--operator", "--crd-group", GROUP), KUBECONFIG=str(kubeconfig))
    with function_crd(cluster, GROUP):
        try:
            client = platform.start().client
            client.create(FunctionSpec("asked", image, NAMESPACE))
            client.update(FunctionSpec("asked", image, NAMESPACE, annotations={"note": "x"}))
            client.rollback("asked", 1, NAMESPACE)
            condition = '{.status.conditions[?(@.type=="Ready")].status}'
            question = ("get", f"functions.{GROUP}", "asked", "-n", NAMESPACE, "-o", f"jsonpath={condition}")
            wait_for(lambda: cluster.kubectl(*question) == "True", "its status", 60)
            client.remove("asked", NAMESPACE)
            assert "cannot" not in platform.log
        finally:
            print(platform.log)
            platform.delete()


@pytest.mark.parametrize(
    ("verb", "what", "where"),
    [
        ("list", "secrets", "kube-system"),
        ("get", "secrets", "default"),
        ("create", "pods", NAMESPACE),
        ("create", "pods/exec", NAMESPACE),
        ("create", "deployments", "default"),
        ("get", "configmaps", NAMESPACE),
        ("list", "events", NAMESPACE),
        ("create", "events", "default"),
        ("create", "rolebindings", NAMESPACE),
        ("get", "leases", "kube-system"),
        ("delete", "leases", NAMESPACE),
        ("list", "nodes", ""),
        ("list", "namespaces", ""),
    ],
)
def test_the_role_covers_nothing_else(kubeconfig: Path, verb: str, what: str, where: str) -> None:
    place = ("-n", where) if where else ("--all-namespaces",)
    question = ["kubectl", "--kubeconfig", str(kubeconfig), "auth", "can-i", verb, what, *place]
    assert subprocess.run(question, capture_output=True, text=True, check=False).stdout.strip() == "no"
