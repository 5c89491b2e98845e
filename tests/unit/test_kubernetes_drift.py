"""What others have changed in a Deployment, and what they have not: the server's own spelling is no change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stoker_gateway.providers.kubernetes.drift import named, unpacked_record
from stoker_gateway.providers.kubernetes.manifests import MAX_ANNOTATIONS, RECORD, Mounts, Release, deployment
from stoker_gateway.providers.kubernetes.objects import Deployment
from stoker_gateway.providers.kubernetes.standing import stored_of
from stoker_sdk.function import FunctionSpec, Resources

Object = dict[str, Any]
SPEC = FunctionSpec(
    "greet",
    "registry.example/greet:1",
    "fn",
    env_vars={"A": "1", "EMPTY": ""},
    limits=Resources(memory="1024Mi", cpu="0.5"),
    read_only_root_filesystem=True,
    secrets=["token"],
)
MOUNTS = Mounts(files=("token",))


def written(spec: FunctionSpec = SPEC) -> Object:
    return deployment(Release(spec, "registry.example/greet@sha256:x", True, MOUNTS, "one", 3, 2, restart="then"))


def drift(change: Callable[[Object], object]) -> tuple[str, ...]:
    there = copy.deepcopy(written())
    change(there)
    stored = stored_of(msgspec.convert(there, Deployment))
    assert stored is not None
    return stored.drift


def container(one: Object) -> Object:
    found: Object = one["spec"]["template"]["spec"]["containers"][0]
    return found


def as_the_server_gives_it_back(one: Object) -> None:
    template = one["spec"]["template"]
    container(one)["resources"]["limits"] = {"memory": "1Gi", "cpu": "500m"}
    for variable in container(one)["env"]:
        if variable.get("value") == "":
            del variable["value"]
        if "valueFrom" in variable:
            variable["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
    del container(one)["readinessProbe"]["initialDelaySeconds"]
    container(one)["terminationMessagePath"] = "/dev/termination-log"
    template["spec"] |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    template["metadata"]["creationTimestamp"] = None
    one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "4"


def as_others_may_have_it(one: Object) -> None:
    one["spec"]["replicas"] = 7
    one["metadata"]["labels"]["team"] = "x"
    annotations = one["spec"]["template"]["metadata"]["annotations"]
    annotations |= {"internal.stoker.dev/restart": "now", "kubectl.kubernetes.io/restartedAt": "now", "mesh": "yes"}
    one["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]


@pytest.mark.parametrize("change", [lambda one: None, as_the_server_gives_it_back, as_others_may_have_it])
def test_this_is_no_drift(change: Callable[[Object], object]) -> None:
    assert drift(change) == ()


def without(name: str) -> Callable[[Object], object]:
    return lambda one: container(one)["env"].remove(next(v for v in container(one)["env"] if v["name"] == name))


def pod(one: Object) -> Object:
    found: Object = one["spec"]["template"]["spec"]
    return found


def annotations(one: Object) -> Object:
    found: Object = one["spec"]["template"]["metadata"]["annotations"]
    return found


POD = "spec.template.spec"
C = f"{POD}.containers.0"
ID = "internal.stoker.dev/id"


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda one: container(one).update(image="evil"), f"{C}.image"),
        (lambda one: container(one)["env"].append({"name": "B", "value": "2"}), f"{C}.env"),
        (without("A"), f"{C}.env"),
        (lambda one: container(one)["resources"]["limits"].update(memory="2Gi"), f"{C}.resources.limits.memory"),
        (lambda one: container(one)["resources"].clear(), f"{C}.resources.limits"),
        (lambda one: container(one).pop("livenessProbe"), f"{C}.livenessProbe"),
        (lambda one: container(one)["startupProbe"].update(periodSeconds=9), f"{C}.startupProbe.periodSeconds"),
        (lambda one: container(one)["securityContext"].clear(), f"{C}.securityContext.allowPrivilegeEscalation"),
        (lambda one: pod(one).pop("automountServiceAccountToken"), f"{POD}.automountServiceAccountToken"),
        (lambda one: pod(one)["containers"].append({"name": "more"}), f"{POD}.containers"),
        (lambda one: one["spec"].update(strategy={"type": "Recreate"}), "spec.strategy.rollingUpdate"),
        (lambda one: annotations(one).pop(ID), f"spec.template.metadata.annotations.{ID}"),
        (lambda one: one["metadata"]["labels"].pop("faas_function"), "metadata.labels.faas_function"),
    ],
)
def test_this_is(change: Callable[[Object], object], fields: str) -> None:
    assert drift(change)[0] == fields


@pytest.mark.parametrize("record", ["", "x", "eJw=", "AAAA", "eJxTNQEAALcAcw=="])
def test_without_a_record_that_can_be_read_nothing_is_drift(record: str) -> None:
    def change(one: Object) -> None:
        one["metadata"]["annotations"][RECORD] = record
        container(one)["image"] = "evil"

    assert drift(change) == () and unpacked_record(record) == {}


def test_the_record_gives_way_to_the_function_itself() -> None:
    full = written(msgspec.structs.replace(SPEC, annotations={"note": "x" * 130_600}))["metadata"]["annotations"]
    assert RECORD not in full
    assert sum(len(key) + len(value) for key, value in full.items()) <= MAX_ANNOTATIONS


def test_many_fields_are_a_line_of_bounded_length() -> None:
    assert named(tuple("abcdefgh")) == "a, b, c, d, e and 3 more"
