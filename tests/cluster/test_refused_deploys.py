"""What cannot be deployed: the command line says what is in the way, and nothing is left of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from running_cluster import Cluster
from running_platform import Platform, wait_for
from scripted_api import ScriptedApi

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FULL, READING, HALF, QUOTA = (f"stoker-refused-{name}" for name in ("full", "reading", "half", "quota"))
HANDLER = "def handle(req):\n    return 'here'\n"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
HASTY = ("--annotation", "stoker.dev/deploy_deadline=5s")
READ = ("get", "list", "watch")

Deploy = Callable[..., str]


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApi]:
    """Four namespaces, and an account that may do everything in some of them, and little in others."""
    for namespace in (FULL, READING, HALF, QUOTA):
        cluster.ensure_namespace(namespace)
    token = cluster.account(FULL, "stoker")
    rules = yaml.safe_load((Path(__file__).parent / "roles.yml").read_text())["rules"]
    reads = [(rule, [verb for verb in rule["verbs"] if verb in READ]) for rule in rules]
    reading = [rule | {"verbs": verbs} for rule, verbs in reads if verbs]
    no_services = [rule if rule["resources"] != ["services"] else rule | {"verbs": ["get"]} for rule in rules]
    for namespace, allowed in ((FULL, rules), (READING, reading), (HALF, no_services), (QUOTA, rules)):
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "stoker"}}
        cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(role | {"rules": allowed}))
        to = ("--role=stoker", f"--serviceaccount={FULL}:stoker")
        cluster.kubectl("create", "rolebinding", "stoker", "-n", namespace, *to)
    with ScriptedApi(cluster, tmp_path_factory.mktemp("scripted"), token) as scripted:
        yield scripted
    for namespace in (FULL, READING, HALF, QUOTA):
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def platform_beside(api: ScriptedApi) -> Iterator[Platform]:
    namespaces = [flag for name in (FULL, READING, HALF, QUOTA) for flag in ("--function-namespace", name)]
    flags = ("--provider", "kubernetes", "--no-async", *namespaces)
    platform = Platform(flags=flags, KUBECONFIG=str(api.kubeconfig))
    try:
        yield platform.start()
    finally:
        print(platform.log)
        platform.delete()


@pytest.fixture
def refused(platform_beside: Platform, api: ScriptedApi) -> Iterator[Deploy]:
    """`stoker deploy` that has to fail: gives what it wrote to standard error."""

    def deploy(name: str, image: str, namespace: str = FULL, *flags: str) -> str:
        done = stoker(platform_beside, "deploy", "--name", name, "--image", image, "-n", namespace, *flags)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    yield deploy
    api.heal()


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    return cluster.function("refused", HANDLER)


def stoker(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stoker_cli", *arguments, "-g", platform.http_url]
    return subprocess.run(command, env=platform.environment, capture_output=True, text=True, timeout=60, check=False)


def left(cluster: Cluster, namespace: str) -> str:
    """Pods follow their Deployment."""
    return cluster.kubectl("get", "deployments,services", "-n", namespace, "-o", "name")


def test_an_image_that_does_not_exist(refused: Deploy, cluster: Cluster) -> None:
    image = f"{cluster.registry}/no/such:1"
    assert f"image {image} does not exist in {cluster.registry}: push it first" in refused("missing", image)
    assert left(cluster, FULL) == ""


def test_an_image_for_another_architecture(
    refused: Deploy, platform_beside: Platform, cluster: Cluster, image: str
) -> None:
    """An index that has none for this machine: the pod cannot be made, and removing the function leaves nothing."""
    told = refused("foreign", foreign(cluster, image), FULL, *HASTY)
    assert "it did not start" in told and "no match for platform" in told
    assert stoker(platform_beside, "remove", "foreign", "-n", FULL).returncode == 0
    wait_for(lambda: left(cluster, FULL) == "", "nothing to be left", 60)


def foreign(cluster: Cluster, image: str) -> str:
    """An index which says that the image is for a machine that nobody has."""
    path, _, tag = image.removeprefix(f"{cluster.registry}/").partition(":")
    url = f"http://{cluster.registry}/v2/{path}/manifests"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{tag}", headers={"Accept": MANIFEST})) as answer:
        size, digest = len(answer.read()), answer.headers["Docker-Content-Digest"]
    platform = {"architecture": "s390x", "os": "linux"}
    entry = {"mediaType": MANIFEST, "size": size, "digest": digest, "platform": platform}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    headers = {"Content-Type": INDEX}
    urllib.request.urlopen(urllib.request.Request(f"{url}/foreign", body, headers, method="PUT")).close()
    return f"{cluster.registry}/{path}:foreign"


def test_no_permission_in_the_namespace(refused: Deploy, cluster: Cluster, image: str) -> None:
    told = refused("greet", image, READING)
    assert f'cannot create resource "deployments" in API group "apps" in the namespace "{READING}"' in told
    assert "give the platform's service account this right" in told
    assert 'cannot create resource "services"' in refused("greet", image, HALF)
    for namespace in (READING, HALF):
        wait_for(lambda namespace=namespace: left(cluster, namespace) == "", "nothing to be left", 60)


@pytest.mark.parametrize("counted", ["count/deployments.apps", "services"])
def test_a_quota_of_objects(refused: Deploy, cluster: Cluster, image: str, counted: str) -> None:
    cluster.kubectl("create", "quota", "tight", "-n", QUOTA, f"--hard={counted}=0")
    try:
        wait_for(
            lambda: "hard" in cluster.kubectl("get", "quota", "tight", "-n", QUOTA, "-o", "jsonpath={.status}"), "it"
        )
        told = refused("greet", image, QUOTA)
        assert "exceeded quota: tight" in told and "have the quota of the namespace raised" in told
        wait_for(lambda: left(cluster, QUOTA) == "", "nothing to be left", 60)
    finally:
        cluster.kubectl("delete", "quota", "tight", "-n", QUOTA)


def test_a_quota_of_pods_is_the_reason_of_a_failed_function(
    refused: Deploy, platform_beside: Platform, cluster: Cluster, image: str
) -> None:
    cluster.kubectl("create", "quota", "tight", "-n", QUOTA, "--hard=pods=0")
    try:
        wait_for(
            lambda: "hard" in cluster.kubectl("get", "quota", "tight", "-n", QUOTA, "-o", "jsonpath={.status}"), "it"
        )
        assert (
            "it did not start: pods" in (told := refused("crowded", image, QUOTA)) and "exceeded quota: tight" in told
        )
        described = stoker(platform_beside, "describe", "crowded", "-n", QUOTA)
        assert "exceeded quota: tight" in described.stdout
        assert stoker(platform_beside, "remove", "crowded", "-n", QUOTA).returncode == 0
        wait_for(lambda: left(cluster, QUOTA) == "", "nothing to be left", 60)
    finally:
        cluster.kubectl("delete", "quota", "tight", "-n", QUOTA)


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "the Kubernetes API is overloaded (429): try again later"), (500, "scripted 500 (500): try again later")],
)
@pytest.mark.parametrize("objects", ["/deployments", "/services"])
def test_an_api_server_that_is_in_trouble(
    refused: Deploy, api: ScriptedApi, cluster: Cluster, image: str, status: int, words: str, objects: str
) -> None:
    api.refuse("POST", objects, status)
    assert words in refused("greet", image)
    wait_for(lambda: left(cluster, FULL) == "", "nothing to be left", 60)


def test_what_cannot_be_taken_back_is_told_and_completed_by_the_next_deploy(
    refused: Deploy, platform_beside: Platform, api: ScriptedApi, cluster: Cluster, image: str
) -> None:
    api.refuse("POST", "/services", 500)
    api.refuse("DELETE", "/deployments/half", 500)
    told = refused("half", image)
    assert "service 'half': scripted 500" in told and "what was made stays" in told and "deploy again" in told
    api.heal()
    done = stoker(platform_beside, "deploy", "--name", "half", "--image", image, "-n", FULL)
    assert done.returncode == 0, done.stderr
    assert "service/half" in left(cluster, FULL)
    assert stoker(platform_beside, "remove", "half", "-n", FULL).returncode == 0
    wait_for(lambda: left(cluster, FULL) == "", "nothing to be left", 60)
