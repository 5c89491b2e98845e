"""What a pod's status says about a replica, and what replicas say about their function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from stoker_gateway.providers.kubernetes.errors import Expired, Forbidden, error_of, unreachable
from stoker_gateway.providers.kubernetes.judge import judge
from stoker_gateway.providers.kubernetes.manifests import Mounts, Release, deployment
from stoker_gateway.providers.kubernetes.objects import Deployment, Pod
from stoker_gateway.providers.kubernetes.pods import Replica, replica_of
from stoker_gateway.providers.kubernetes.standing import Standing, Stored, stored_of
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import Condition, FunctionSpec, RolledBack

START = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:00:09Z"
RUNNING = {"running": {"startedAt": START}}


def replica(
    name: str = "greet-1",
    *,
    ready: str = "True",
    since: str = LATER,
    state: dict[str, Any] = RUNNING,
    last: dict[str, Any] | None = None,
    revision: str = "1",
    leaving: bool = False,
    ip: str | None = "10.0.0.7",
    scheduled: dict[str, Any] | None = None,
    phase: str = "Running",
    restarts: int = 2,
) -> Replica:
    document = {
        "metadata": {
            "name": name,
            "namespace": "fn",
            "creationTimestamp": START,
            "deletionTimestamp": LATER if leaving else None,
            "labels": {"faas_function": "greet"},
            "annotations": {"internal.stoker.dev/id": "one", "internal.stoker.dev/revision": revision},
        },
        "status": {
            "phase": phase,
            "podIP": ip,
            "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": since},
                *([scheduled] if scheduled else []),
            ],
            "containerStatuses": [
                {"name": "mesh", "state": {"waiting": {"reason": "ErrImagePull"}}},
                {"name": "greet", "restartCount": restarts, "state": state, "lastState": last or {}},
            ],
        },
    }
    return replica_of(msgspec.convert(document, Pod))


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int = 1, message: str = "", **fields: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, **fields}}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "ready"),
        ({"ready": "False", "since": START}, "starting"),
        ({"ready": "False", "since": LATER}, "unhealthy"),
        ({"ready": "False", "state": waiting("CrashLoopBackOff")}, "starting"),
        ({"ip": None}, "unhealthy"),
        ({"leaving": True}, "draining"),
        ({"leaving": True, "ready": "False"}, "draining"),
        ({"phase": "Failed"}, "draining"),
    ],
)
def test_the_state_of_a_replica(fields: dict[str, Any], state: str) -> None:
    assert replica(**fields).state == state


@pytest.mark.parametrize(("ip", "address"), [("10.0.0.7", "tcp:10.0.0.7:8080"), ("fd00::7", "tcp:[fd00::7]:8080")])
def test_calls_go_to_the_pods_own_address(ip: str, address: str) -> None:
    assert replica(ip=ip).target.address == address


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"state": waiting("ImagePullBackOff", "back-off")}, "image-pull", "back-off"),
        ({"state": waiting("CreateContainerConfigError", 'secret "x" not found')}, "cannot-start", '"x" not found'),
        (
            {"state": waiting("CrashLoopBackOff"), "last": ended(3, "a\nImportError: x\n")},
            "cannot-start",
            "code 3: ImportError: x",
        ),
        ({"state": ended(0, "", signal=9)}, "cannot-start", "killed by signal 9"),
        (
            {"state": waiting("CrashLoopBackOff"), "last": ended(137, reason="OOMKilled")},
            "out-of-memory",
            "limits.memory",
        ),
        (
            {
                "scheduled": {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes",
                }
            },
            "unschedulable",
            "0/1 nodes",
        ),
        ({"phase": "Failed"}, "cannot-start", "the pod failed"),
    ],
)
def test_why_a_replica_does_not_start(fields: dict[str, Any], code: str, words: str) -> None:
    trouble = replica(ready="False", since=START, **fields).trouble
    assert trouble is not None
    assert trouble.code == code
    assert words in trouble.message


@pytest.mark.parametrize("state", [RUNNING, waiting("ContainerCreating"), waiting("PodInitializing")])
def test_what_merely_starts_has_no_trouble(state: dict[str, Any]) -> None:
    assert replica(ready="False", since=START, state=state, last=ended() if state is RUNNING else None).trouble is None


def test_what_it_printed_last_is_kept() -> None:
    trouble = replica(ready="False", state=ended(1, "\n".join(str(number) for number in range(40)))).trouble
    assert trouble is not None
    assert trouble.output == tuple(str(number) for number in range(20, 40))


def stored(
    replicas: int = 1,
    *,
    complete: bool = True,
    revision: int = 1,
    overdue: bool = False,
    refusal: str = "",
    pods_of: int = 0,
    rolled_back: RolledBack | None = None,
) -> Stored:
    spec = FunctionSpec("greet", "r.io/greet:1", namespace="fn")
    release = Release(
        spec, "r.io/greet@sha256:" + "a" * 64, True, Mounts(), "one", revision, replicas,
        pods_of=pods_of, rolled_back=rolled_back,
    )  # fmt: skip
    body = deployment(release)
    body["metadata"] |= {"generation": 4, "resourceVersion": "7", "uid": "u"}
    reason = "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"
    conditions = [{"type": "Progressing", "status": "True", "reason": reason}]
    if overdue:
        conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    if refusal:
        conditions.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refusal})
    body["status"] = {"observedGeneration": 4, "conditions": conditions}
    found = stored_of(msgspec.convert(body, Deployment))
    assert found is not None
    return found


def condition(*replicas: Replica, **fields: Any) -> Condition:
    found = Standing(stored(**fields), replicas).status().stoker
    assert found is not None
    return found


CRASHED = {"ready": "False", "since": START, "state": waiting("CrashLoopBackOff"), "last": ended(1, "no module")}


@pytest.mark.parametrize(
    ("replicas", "fields", "state", "serving"),
    [
        ([], {"replicas": 0}, "zero", 0),
        ([], {}, "deploying", 0),
        ([replica()], {}, "ready", 1),
        ([replica()], {"replicas": 2}, "deploying", 1),
        ([replica(ready="False")], {}, "unhealthy", 0),
        ([replica(**CRASHED)], {"complete": False}, "failed", 0),
        ([replica(**CRASHED)], {}, "deploying", 0),
        ([replica("old"), replica(revision="2", **CRASHED)], {"revision": 2, "complete": False}, "failed", 1),
        ([replica("old"), replica(revision="2")], {"revision": 2, "complete": False}, "ready", 1),
        ([replica("old", leaving=True), replica(revision="2")], {"revision": 2}, "ready", 2),
        ([replica("old")], {"revision": 2, "complete": False}, "deploying", 1),
    ],
)
def test_how_a_function_stands(replicas: list[Replica], fields: dict[str, Any], state: str, serving: int) -> None:
    found = condition(*replicas, **fields)
    assert (found.state, found.serving) == (state, serving)


OLD, NEW = replica("old"), {"revision": 2, "complete": False}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
WAITS = replica("new", revision="2", ready="False", since=START, state={}, scheduled=NO_NODE, restarts=0)
CREATED = replica("new", revision="2", ready="False", since=START, state=waiting("ContainerCreating"), restarts=0)
STARTS = replica("new", revision="2", ready="False", since=START, restarts=0)
PULLS = replica("new", revision="2", ready="False", since=START, state=waiting("ErrImagePull"), restarts=0)
CRASHED_ONCE = replica("new", revision="2", **CRASHED | {"state": ended(1, "no module"), "restarts": 0})
CRASHED_TWICE = replica("new", revision="2", **CRASHED, restarts=1)


def ended_twice(code: int, signal: int = 0) -> Replica:
    crash = {"state": ended(code, "bye", signal=signal), "last": ended(code, signal=signal)}
    return replace(replica("new", revision="2", **CRASHED | crash, restarts=1), note="nothing listens on port 8080")


@pytest.mark.parametrize(
    ("replicas", "fields", "reason"),
    [
        ([OLD, CRASHED_TWICE], NEW, "ended with exit code 1: no module"),
        ([OLD, ended_twice(143)], NEW, "bye; it was never ready, because nothing listens on port 8080"),
        ([OLD, ended_twice(0)], NEW, "bye; it was never ready, because nothing listens on port 8080"),
        ([OLD, ended_twice(1, signal=15)], NEW, "bye; it was never ready, because nothing listens on port 8080"),
        ([OLD, ended_twice(1)], NEW, "ended with exit code 1: bye"),
        ([OLD, WAITS], NEW | {"overdue": True}, "no node takes it: 0/1 nodes"),
        ([OLD, PULLS], NEW | {"overdue": True}, "ErrImagePull"),
        ([OLD, STARTS], NEW | {"overdue": True}, "it was not ready within 2m (deploy_deadline)"),
        ([OLD, CREATED], NEW | {"overdue": True}, "`kubectl describe pod -n fn new` says why"),
        ([OLD, replace(STARTS, note="no database")], NEW | {"overdue": True}, "(deploy_deadline): no database"),
        ([OLD], NEW | {"overdue": True, "refusal": "exceeded quota"}, "exceeded quota"),
    ],
)
def test_a_rollout_that_is_lost_goes_back_to_what_serves(
    replicas: list[Replica], fields: dict[str, Any], reason: str
) -> None:
    verdict = judge(Standing(stored(**fields), replicas))
    assert verdict is not None
    assert (verdict.revision, verdict.pods) == (2, (1, ""))
    assert reason in verdict.trouble.message
    assert ("never ready" in reason) == ("never ready" in verdict.trouble.message)


@pytest.mark.parametrize(
    ("replicas", "fields"),
    [
        ([OLD, CRASHED_ONCE], NEW),  # it may do better the next time
        ([OLD, WAITS], NEW),
        ([OLD, PULLS], NEW),
        ([OLD], NEW | {"refusal": "exceeded quota"}),
        ([CRASHED_TWICE], NEW),  # nobody serves
        ([CRASHED_TWICE], NEW | {"overdue": True}),
        ([OLD, CRASHED_TWICE], NEW | {"complete": True}),  # it was ready: it crashes later
        ([OLD, CRASHED_TWICE], NEW | {"replicas": 0}),
        ([OLD, replica("new", revision="2")], NEW | {"overdue": True}),  # it got ready after all
        ([OLD, CRASHED_TWICE], NEW | {"rolled_back": RolledBack(1, 0)}),  # once
        ([replica(**CRASHED)], {"complete": False, "overdue": True}),  # the first deploy
    ],
)
def test_a_rollout_that_may_succeed_or_has_nothing_to_go_back_to_is_left_alone(
    replicas: list[Replica], fields: dict[str, Any]
) -> None:
    assert judge(Standing(stored(**fields), replicas)) is None


def test_a_failed_rollout_says_what_will_be_put_back_and_then_what_was() -> None:
    failing = condition(OLD, WAITS, **NEW)
    assert (failing.state, failing.rollback_to, failing.rolled_back) == ("failed", 1, None)
    undone = RolledBack(2, 1, "no node takes it")
    after = condition(OLD, revision=3, pods_of=1, rolled_back=undone, complete=False)
    assert (after.state, after.serving, after.rollback_to, after.rolled_back) == ("ready", 3, 0, undone)


def test_pods_that_the_cluster_does_not_make_are_a_failure() -> None:
    refused = condition(complete=False, refusal="pods is forbidden: exceeded quota: q")
    assert (refused.state, refused.code) == ("failed", "pod-refused") and "exceeded quota: q" in refused.message
    assert condition(replica("old"), revision=2, complete=False, refusal="quota").serving == 1
    assert condition(replica(), refusal="only one more").state == "ready"


def test_a_failure_is_told_to_callers_only_while_nobody_serves() -> None:
    crashed = replica("greet-2", revision="2", **CRASHED)
    alone = Standing(stored(revision=2, complete=False), [crashed]).route()
    assert "no module" in alone.failure and not alone.targets
    beside = Standing(stored(revision=2, complete=False), [replica(), crashed]).route()
    assert not beside.failure and [target.id for target in beside.targets] == ["greet-1"]


def test_who_leaves_gets_no_calls_though_he_is_ready() -> None:
    assert Standing(stored(), [replica(leaving=True)]).route().targets == []


def test_the_reason_of_an_unhealthy_replica_is_its_own() -> None:
    sick = replica(ready="False")
    found = Standing(stored(), [sick], {sick.id: "no database"}).status().stoker
    assert found is not None
    assert found.message == "1 of 1 replicas unhealthy: no database"
    assert [one.message for one in found.instances] == ["no database"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"service": 1}'])
def test_a_deployment_without_a_function_is_none_of_ours(text: str) -> None:
    document = {"metadata": {"name": "greet", "annotations": {"internal.stoker.dev/spec": text}}}
    assert stored_of(msgspec.convert(document, Deployment)) is None


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (400, "bad field", BadInput, "bad field"),
        (422, "must be less", BadInput, "must be less"),
        (404, "gone", NotFound, "gone"),
        (409, "exists", Conflict, "exists"),
        (410, "too old", Expired, "too old"),
        (403, 'pods "x" is forbidden: exceeded quota: q', BadInput, "quota of the namespace"),
        (403, "cannot create pods", Forbidden, "service account"),
        (401, "Unauthorized", Forbidden, "credentials"),
        (429, "slow down", Unavailable, "overloaded"),
        (500, "etcd", Unavailable, "try again later"),
        (503, "", Unavailable, "503"),
        (418, "teapot", StokerError, "418"),
    ],
)
def test_what_the_api_refuses_is_one_of_our_errors(
    status: int, message: str, kind: type[StokerError], words: str
) -> None:
    error = error_of(status, msgspec.json.encode({"message": message, "code": status}), "deployment 'greet'")
    assert type(error) is kind
    assert words in str(error) and "deployment 'greet'" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"message": 5}'])
def test_a_refusal_that_cannot_be_read_is_still_one(body: bytes) -> None:
    assert isinstance(error_of(502, body, "x"), Unavailable)


def test_a_silent_api_is_unavailable_with_a_reason() -> None:
    assert "did not answer in time" in str(unreachable(TimeoutError(), "x"))
    assert "refused" in str(unreachable(ConnectionRefusedError("refused"), "x"))
