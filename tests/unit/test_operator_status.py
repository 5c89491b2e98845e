"""What a resource asks for, and its status: from values to values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from stoker_gateway.providers.kubernetes.errors import Forbidden
from stoker_gateway.providers.kubernetes.manifests import Mounts, Owner, Release, deployment, service
from stoker_gateway.providers.kubernetes.objects import Deployment, Function, Pod
from stoker_gateway.providers.kubernetes.operator.resource import MARK, Wanted, manifest, owner, wanted
from stoker_gateway.providers.kubernetes.operator.status import differs, status_of
from stoker_gateway.providers.kubernetes.pods import replica_of
from stoker_gateway.providers.kubernetes.releases import Taken
from stoker_gateway.providers.kubernetes.standing import Standing, Stored, stored_of
from stoker_gateway.revisions import Kept
from stoker_sdk.errors import BadInput, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec, RolledBack

SPEC = FunctionSpec("greet", "registry.example/greet:1", "fn", env_vars={"B": "2", "A": "1"})
DIGEST = "registry.example/greet@sha256:" + "a" * 64
OTHER = "registry.example/greet@sha256:" + "b" * 64
GROUP = "openfaas.com"
NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"


def function(body: dict[str, Any] | None = None, **status: Any) -> Function:
    made = body or manifest(Wanted(SPEC, DIGEST), GROUP)
    made["metadata"] |= {"uid": "one", "generation": 4, "resourceVersion": "7"}
    return msgspec.convert(made | ({"status": status} if status else {}), Function)


def standing(replicas: int = 1, *pods: dict[str, Any]) -> Standing:
    history = [Kept(3, NOW, SPEC, DIGEST)]
    asked = owner(function(), GROUP)
    release = Release(SPEC, DIGEST, True, Mounts(), "one", 3, replicas, history=history, owner=asked)
    stored = stored_of(msgspec.convert(deployment(release), Deployment))
    assert stored is not None and stored.owner == asked
    return Standing(stored, [replica_of(msgspec.convert(pod, Pod)) for pod in pods])


def pod(name: str = "greet-1", waiting: str = "", ready: bool = True) -> dict[str, Any]:
    annotations = {"internal.stoker.dev/revision": "3", "internal.stoker.dev/id": "one"}
    state = {"waiting": {"reason": waiting, "message": "not there"}} if waiting else {"running": {}}
    return {
        "metadata": {"name": name, "labels": {"faas_function": "greet"}, "annotations": annotations},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready and not waiting else "False"}],
            "containerStatuses": [{"name": "greet", "state": state}],
        },
    }


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {one["type"]: (one["status"], one["reason"], one.get("message", "")) for one in status["conditions"]}


# What it asks for


def test_what_the_api_knows_of_a_deploy_counts_for_that_content_alone() -> None:
    body = manifest(Wanted(SPEC, DIGEST, rollback_to=2), GROUP)
    assert wanted(function(body)) == Wanted(SPEC, DIGEST, 2)
    body["spec"]["environment"] = {"A": "1", "B": "2"}  # in another order, as the cluster gives it back
    assert wanted(function(body)).image == DIGEST
    body["spec"]["environment"] = {"A": "1"}
    assert wanted(function(body)) == Wanted(msgspec.structs.replace(SPEC, env_vars={"A": "1"}))


@pytest.mark.parametrize("forged", ["", "{", "[]", '{"of": 5}', '{"of": "x", "image": "evil"}'])
def test_a_forged_mark_is_none(forged: str) -> None:
    body = manifest(Wanted(SPEC, DIGEST), GROUP)
    body["metadata"]["annotations"][MARK] = forged
    assert wanted(function(body)) == Wanted(SPEC)


def test_what_kubernetes_cannot_hold_is_refused() -> None:
    body = manifest(Wanted(msgspec.structs.replace(SPEC, constraints=["disk"]), DIGEST), GROUP)
    with pytest.raises(BadInput, match="constraint 'disk'"):
        wanted(function(body))


def test_a_resource_owns_what_is_made_for_it() -> None:
    reference = {"apiVersion": "openfaas.com/v1", "kind": "Function", "name": "greet", "uid": "one", "controller": True}
    mine = owner(function(), GROUP)
    assert mine == Owner("openfaas.com/v1", "Function", "one")
    assert service(SPEC, mine)["metadata"]["ownerReferences"] == [reference]
    release = Release(SPEC, DIGEST, True, Mounts(), "one", 3, 1)
    with_owner = deployment(replace(release, owner=mine))
    assert with_owner["metadata"].pop("ownerReferences") == [reference]
    assert with_owner == deployment(release)


# What was tried and undone

BROKEN = msgspec.structs.replace(SPEC, env_vars={"A": "broken"})


def put_back(failed: FunctionSpec = BROKEN) -> Stored:
    """Revision 3 failed, and what served before is there again as revision 4."""
    history = [Kept(2, NOW, SPEC, DIGEST), Kept(3, NOW, failed, OTHER), Kept(4, NOW, SPEC, DIGEST, automatic=True)]
    undone = RolledBack(3, 2, "ended with exit code 1", "cannot-start")
    release = Release(SPEC, DIGEST, True, Mounts(), "one", 4, 1, history=history, pods_of=2, rolled_back=undone)
    stored = stored_of(msgspec.convert(deployment(release), Deployment))
    assert stored is not None
    return stored


@pytest.mark.parametrize(
    ("asked", "done", "given_up"),
    [
        (Wanted(SPEC), True, False),
        (Wanted(BROKEN), True, True),
        (Wanted(BROKEN, OTHER), True, True),
        (Wanted(BROKEN, OTHER, after=2), True, True),
        (Wanted(BROKEN, OTHER, after=4), False, False),  # somebody has asked for it again
        (Wanted(BROKEN, DIGEST), False, False),
        (Wanted(msgspec.structs.replace(SPEC, env_vars=None)), False, False),
    ],
)
def test_what_failed_and_was_undone_is_not_tried_in_a_loop(asked: Wanted, done: bool, given_up: bool) -> None:
    assert (asked.is_done(put_back()), asked.is_given_up(put_back())) == (done, given_up)


def test_a_resource_whose_content_was_undone_says_so() -> None:
    status = status_of(function(manifest(Wanted(BROKEN, OTHER), GROUP)), Standing(put_back(), []), None, NOW)
    words = "revision 3 failed, and 2 is put back: ended with exit code 1"
    assert conditions(status) == {"Ready": ("False", "RolledBack", words), "Stalled": ("True", "RolledBack", words)}
    mended = status_of(function(manifest(Wanted(SPEC, DIGEST), GROUP)), Standing(put_back(), []), None, NOW)
    assert conditions(mended)["Ready"][1] == "Deploying"


# Its status


@pytest.mark.parametrize(
    ("stands", "ready", "stalled"),
    [
        (standing(1, pod()), ("True", "Running", ""), "False"),
        (standing(0), ("True", "ScaledToZero", ""), "False"),
        (standing(1), ("False", "Deploying", ""), "False"),
        (standing(2, pod()), ("False", "Deploying", ""), "False"),
        (None, ("False", "Deploying", ""), "False"),
        (standing(1, pod(waiting="ErrImagePull")), ("False", "ImagePull", "ErrImagePull: not there"), "True"),
    ],
)
def test_conditions_say_how_the_function_stands(
    stands: Standing | None, ready: tuple[str, str, str], stalled: str
) -> None:
    found = conditions(status_of(function(), stands, None, NOW))
    assert (found["Ready"], found["Stalled"][0]) == (ready, stalled)


@pytest.mark.parametrize(
    ("error", "reason", "stalled"),
    [
        (BadInput("secret 'x' does not exist"), "Invalid", "True"),
        (Taken("deployment 'greet' exists"), "NameTaken", "True"),
        (Forbidden("no right"), "Forbidden", "True"),
        (Unavailable("the registry cannot be reached"), "Unavailable", "False"),
        (StokerError("else"), "Failed", "True"),
    ],
)
def test_an_error_is_the_condition_even_while_the_old_revision_serves(
    error: StokerError, reason: str, stalled: str
) -> None:
    for stands in (None, standing(1, pod())):
        status = status_of(function(), stands, error, NOW)
        found = conditions(status)
        assert (found["Ready"], found["Stalled"][0]) == (("False", reason, str(error)), stalled)
        assert status["availableReplicas"] == (1 if stands else 0)


def test_numbers_image_and_history_are_those_of_the_deployment() -> None:
    status = status_of(function(), standing(2, pod()), None, NOW)
    assert (status["replicas"], status["availableReplicas"], status["unavailableReplicas"]) == (2, 1, 1)
    assert (status["revision"], status["image"], status["observedGeneration"]) == (3, DIGEST, 4)
    assert status["history"]


def test_without_a_deployment_what_is_known_of_the_function_stays() -> None:
    status = status_of(function(), None, BadInput("x"), NOW)
    assert not status.keys() & {"history", "revision", "image", "replicas"}


def test_a_status_that_is_right_is_not_written_again_and_its_times_are_kept() -> None:
    first = status_of(function(), standing(1, pod()), None, NOW)
    assert differs(function(), first)
    again = status_of(function(**first), standing(1, pod()), None, LATER)
    assert again == first and not differs(function(**first), again)
    changed = status_of(function(**first), standing(1), None, LATER)
    times = {one["type"]: one["lastTransitionTime"] for one in changed["conditions"]}
    assert differs(function(**first), changed) and times == {"Ready": LATER, "Stalled": NOW}


@pytest.mark.parametrize("forged", [[], {"conditions": 5}, {"conditions": [5, {"type": 5}]}, "x"])
def test_a_status_of_somebody_else_is_overwritten(forged: Any) -> None:
    body = manifest(Wanted(SPEC), GROUP) | {"status": forged}
    there = msgspec.structs.replace(function(), status=body["status"])
    assert differs(there, status_of(there, standing(1, pod()), None, NOW))
