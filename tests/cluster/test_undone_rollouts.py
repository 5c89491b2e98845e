"""Rollouts that fail, on a real cluster with two platforms: what served is put back, once, and all are told why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.function import Condition, FunctionSpec, Resources

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "stoker-undone"
FINE = "def handle(req):\n    return 'fine'\n"
BROKEN = "print('about to break')\nraise ImportError('broken on purpose')\n"
HASTY = {"stoker.dev/deploy_deadline": "5s"}
TOO_MUCH = Resources(cpu="1000")
NOWHERE = {"stoker.dev/unpinned": "true"}
SICK = "def handle(req):\n    return 'sick'\n\ndef health():\n    raise OSError('no database')\n"


@pytest.fixture(scope="module")
def platforms(cluster: Cluster) -> Iterator[list[Platform]]:
    """Two that share nothing but the cluster."""
    cluster.ensure_namespace(NAMESPACE)
    flags = ("--provider", "kubernetes", "--no-async", "--function-namespace", NAMESPACE)
    both = [Platform(flags=flags, KUBECONFIG=str(cluster.kubeconfig)) for _ in range(2)]
    try:
        for one in both:
            one.start()
        yield both
    finally:
        for one in both:
            print(one.log)
            one.delete()
        # The cluster would wait for the pods' grace period, whether they need it or not.
        cluster.kubectl("delete", "deployments", "--all", "-n", NAMESPACE)
        cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=0", "--force")
        cluster.kubectl("delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def fine(cluster: Cluster) -> str:
    return cluster.function("undone-fine", FINE)


@pytest.fixture(scope="module")
def broken(cluster: Cluster) -> str:
    return cluster.function("undone-broken", BROKEN)


def deploy(platform: Platform, name: str, image: str, **fields: Any) -> int:
    spec = FunctionSpec(name, image, NAMESPACE, **fields)
    known = [status.name for status in platform.client.functions(NAMESPACE)]
    return platform.client.update(spec) if name in known else platform.client.create(spec)


def condition(platform: Platform, name: str) -> Condition:
    found = platform.client.function(name, NAMESPACE).stoker
    assert found is not None
    return found


def until_ready(platform: Platform, name: str, revision: int) -> Condition:
    def ready() -> Condition | None:
        found = condition(platform, name)
        return found if found.revision >= revision and found.state == "ready" else None

    return wait_for(ready, f"revision {revision} of {name}", 60)


def pods(cluster: Cluster, name: str) -> set[str]:
    """Those that are not about to end, by uid."""
    found = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"faas_function={name}", "-o", "json"))
    metadata = [one["metadata"] for one in found["items"]]
    return {one["uid"] for one in metadata if "deletionTimestamp" not in one}


def holder(cluster: Cluster) -> str:
    return cluster.kubectl("get", "lease", "stoker", "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")


@pytest.mark.parametrize(
    ("name", "change", "reason", "code", "seconds"),
    [
        ("crashes", {"image": ""}, "the handler cannot be imported: broken on purpose", "cannot-start", 20),
        ("unplaced", {"requests": TOO_MUCH, "annotations": HASTY}, "no node takes it: 0/1 nodes", "unschedulable", 15),
        (
            "unpulled",
            {"image": "localhost:1/greet:1", "annotations": HASTY | NOWHERE},
            "localhost:1/greet:1",
            "image-pull",
            15,
        ),
    ],
)
def test_what_served_is_put_back_with_its_very_pods(
    platforms: list[Platform],
    cluster: Cluster,
    fine: str,
    broken: str,
    name: str,
    change: dict[str, Any],
    reason: str,
    code: str,
    seconds: float,
) -> None:
    one, other = platforms
    until_ready(one, name, deploy(one, name, fine))
    before, begun = pods(cluster, name), monotonic()
    assert deploy(one, name, **{"image": fine} | change | ({"image": broken} if code == "cannot-start" else {})) == 2
    for platform in (one, other):
        undone = until_ready(platform, name, 3).rolled_back
        assert undone is not None
        assert (undone.revision, undone.to, undone.code) == (2, 1, code)
        assert reason in undone.message
    assert monotonic() - begun < seconds
    if code == "cannot-start":
        assert "about to break" in "\n".join(undone.output)
    wait_for(lambda: pods(cluster, name) == before, "the end of the pods that failed", 60)
    assert one.call(f"{name}.{NAMESPACE}").text == "fine"
    listed = one.client.revisions(name, NAMESPACE)
    shown = [(each.number, each.rollback_to, each.automatic, each.failed, each.serving) for each in listed]
    assert shown == [(1, 0, False, False, False), (2, 0, False, True, False), (3, 1, True, False, True)]
    assert other.client.revisions(name, NAMESPACE) == listed
    assert one.client.function(name, NAMESPACE).image == fine


def test_what_listens_elsewhere_is_told_so(platforms: list[Platform], fine: str) -> None:
    first = platforms[0]
    deploy(first, "elsewhere", fine)
    until_ready(first, "elsewhere", 1)
    deploy(first, "elsewhere", fine, env_vars={"port": "3000"}, annotations=HASTY)
    undone = wait_for(lambda: condition(first, "elsewhere").rolled_back, "the end of the rollout", 60)
    assert undone.message == "it was not ready within 5s (deploy_deadline): nothing listens on port 8080"
    first.client.remove("elsewhere", NAMESPACE)


def test_a_version_that_is_never_healthy_is_undone_with_the_reason_of_its_hook(
    platforms: list[Platform], cluster: Cluster, fine: str
) -> None:
    one, _ = platforms
    until_ready(one, "sick", deploy(one, "sick", fine))
    deploy(one, "sick", cluster.function("undone-sick", SICK), annotations=HASTY)
    undone = until_ready(one, "sick", 3).rolled_back
    assert undone is not None
    assert undone.message.startswith("it was not ready within 5s (deploy_deadline): ")
    assert "no database" in undone.message


def test_the_command_says_why_and_what_was_put_back(platforms: list[Platform], fine: str, broken: str) -> None:
    one, _ = platforms
    until_ready(one, "told", deploy(one, "told", fine))
    done = stoker(one, "deploy", "--image", broken, "--name", "told")
    assert done.returncode == 1
    assert "function 'told': it did not start: ended with exit code 1: " in done.stderr
    assert "the handler cannot be imported: broken on purpose" in done.stderr
    assert "rolled back to revision 1, which serves" in done.stderr
    assert "about to break" in done.stderr
    assert "revision 2 failed, 1 was put back" in stoker(one, "describe", "told").stdout
    assert "rollback to 1, because 2 failed" in stoker(one, "revisions", "told").stdout


def stoker(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stoker_cli", *arguments, "--namespace", NAMESPACE]
    command += ["--gateway", platform.http_url]
    environment = platform.environment | {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_first_deploy_that_cannot_start_stays_failed_and_is_tried_no_further(
    platforms: list[Platform], broken: str
) -> None:
    one, _ = platforms
    deploy(one, "stillborn", broken, annotations=HASTY)
    deadline = monotonic() + 15  # three times its deadline
    wait_for(lambda: condition(one, "stillborn").state == "failed", "its failure", 30)
    while monotonic() < deadline:
        assert condition(one, "stillborn").revision == 1
    found = condition(one, "stillborn")
    assert (found.rollback_to, found.rolled_back, found.serving) == (0, None, 0)


def test_the_next_deploy_after_an_undone_one_may_fail_too_and_one_that_works_ends_the_story(
    platforms: list[Platform], cluster: Cluster, fine: str, broken: str
) -> None:
    one, _ = platforms
    until_ready(one, "again", deploy(one, "again", fine))
    before = pods(cluster, "again")
    deploy(one, "again", broken)
    until_ready(one, "again", 3)
    deploy(one, "again", broken)
    undone = until_ready(one, "again", 5).rolled_back
    assert undone is not None and (undone.revision, undone.to) == (4, 1)
    wait_for(lambda: pods(cluster, "again") == before, "the end of the pods that failed", 60)
    deploy(one, "again", fine, labels={"n": "1"})
    found = until_ready(one, "again", 6)
    assert found.rolled_back is None
    wait_for(lambda: condition(one, "again").serving == 6, "revision 6 alone to serve", 60)


def test_what_serves_and_the_cluster_does_not_know_yet_outlives_two_deploys(
    platforms: list[Platform], cluster: Cluster, fine: str, broken: str
) -> None:
    """The platform asks a replica itself and knows sooner that it is ready. The kubelet asks this one every 8 s."""
    one, _ = platforms
    seldom = {"com.openfaas.ready.http.periodSeconds": "8"}
    until_ready(one, "early", deploy(one, "early", fine, annotations=seldom))
    served = pods(cluster, "early")
    deploy(one, "early", broken, annotations=seldom)
    wait_for(lambda: len(pods(cluster, "early")) == 2, "the pod of the second version")
    deploy(one, "early", broken, annotations=seldom | {"n": "3"})
    wait_for(lambda: condition(one, "early").state == "failed" and condition(one, "early").revision == 3, "the third")
    assert (condition(one, "early").serving, served <= pods(cluster, "early")) == (1, True)
    assert one.call(f"early.{NAMESPACE}").text == "fine"
    until_ready(one, "early", 4)


def test_whoever_follows_a_killed_leader_undoes_what_fails(
    platforms: list[Platform], cluster: Cluster, fine: str
) -> None:
    one, other = platforms
    until_ready(one, "orphan", deploy(one, "orphan", fine))
    before = holder(cluster)
    leader = next(each for each in platforms if f"({before}) is the leader" in each.log)
    follower = other if leader is one else one
    deploy(follower, "orphan", fine, requests=TOO_MUCH, annotations=HASTY)
    leader.kill_everything()
    killed = monotonic()
    wait_for(lambda: holder(cluster) != before, "another leader", 30)
    assert monotonic() - killed < 20
    assert until_ready(follower, "orphan", 3).rolled_back is not None
    leader.start()
