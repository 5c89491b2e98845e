"""From a function to Kubernetes' objects: one line of a table for each rule of the contract's section 10."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import (
    DEFAULTS,
    HISTORY,
    MAX_ANNOTATIONS,
    Mounts,
    Owner,
    Release,
    Settings,
    deployment,
    grace_seconds,
    mounts_of,
    service,
)
from stoker_gateway.revisions import Kept
from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources, RolledBack

DIGEST = "registry.example/greet@sha256:" + "a" * 64


def spec(**fields: Any) -> FunctionSpec:
    return FunctionSpec(**({"service": "greet", "image": "registry.example/greet:1", "namespace": "fn"} | fields))


def made(settings: Settings = DEFAULTS, **fields: Any) -> dict[str, Any]:
    names = ("mounts", "pinned", "replicas", "restart", "image", "history")
    told = {name: fields.pop(name) for name in names if name in fields}
    release = Release(
        **({"spec": spec(**fields), "image": DIGEST, "pinned": True, "mounts": Mounts(), "identity": "one"} | told),
        **({} if "replicas" in told else {"replicas": 1}),
        revision=3,
    )
    return deployment(release, settings)


def pod(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(**fields)["spec"]["template"]["spec"]
    return found


def container(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(**fields)["containers"][0]
    return found


def environment(**fields: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(**fields)["env"] if "value" in one}


def test_names_labels_and_selector_are_the_contracts() -> None:
    one = made(labels={"team": "x", "faas_function": "forged"})
    assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("greet", "fn")
    assert one["spec"]["selector"] == {"matchLabels": {"faas_function": "greet"}}
    labels = one["spec"]["template"]["metadata"]["labels"]
    assert labels == {"team": "x", "faas_function": "greet", "app.kubernetes.io/managed-by": "stoker"}
    assert one["metadata"]["labels"] == {"faas_function": "greet", "app.kubernetes.io/managed-by": "stoker"}


def test_the_history_is_an_annotation_that_nobody_forges_and_that_leaves_room_for_the_function() -> None:
    kept = [Kept(number, "2026-01-31T12:00:00Z", spec(env_vars={"A": f"{number}"}), DIGEST) for number in (1, 2, 3)]
    one = made(history=kept, annotations={HISTORY: "forged"})
    assert unpacked(one["metadata"]["annotations"][HISTORY]) == kept
    long = made(history=kept, annotations={"note": "x" * 87_000})["metadata"]["annotations"]
    assert sum(len(key) + len(value) for key, value in long.items()) <= MAX_ANNOTATIONS
    full = made(history=kept, annotations={"note": "x" * 131_000})["metadata"]["annotations"]
    assert full[HISTORY] == ""


def test_a_rollout_surges_first_and_takes_nothing_away() -> None:
    strategy = made()["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_users_annotations_are_on_all_three_objects_and_ours_cannot_be_forged() -> None:
    annotations = {"note": "any\ntext", "internal.stoker.dev/id": "forged", "internal.stoker.dev/rolled-back": "{}"}
    one = made(annotations=annotations)
    for held in (
        one["metadata"],
        one["spec"]["template"]["metadata"],
        service(spec(annotations=annotations))["metadata"],
    ):
        assert held["annotations"]["note"] == "any\ntext"
        assert held["annotations"]["prometheus.io.scrape"] == "false"
    for held in (one["metadata"], one["spec"]["template"]["metadata"]):
        assert held["annotations"]["internal.stoker.dev/id"] == "one"
        assert held["annotations"]["internal.stoker.dev/revision"] == "3"
        assert "internal.stoker.dev/rolled-back" not in held["annotations"]


def test_the_users_word_on_scraping_wins() -> None:
    assert (
        made(annotations={"prometheus.io.scrape": "true"})["metadata"]["annotations"]["prometheus.io.scrape"] == "true"
    )


def test_the_whole_spec_is_kept_verbatim_beside_the_pinned_image() -> None:
    asked = {"limits": Resources(memory="0256Mi"), "env_vars": {"A": " b "}}
    annotations = made(**asked)["metadata"]["annotations"]
    assert msgspec.json.decode(annotations["internal.stoker.dev/spec"], type=FunctionSpec) == spec(**asked)
    assert annotations["internal.stoker.dev/image"] == DIGEST


def test_no_spec_is_on_the_pods_because_a_change_of_bounds_alone_must_not_hide_there() -> None:
    assert "internal.stoker.dev/spec" not in made()["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize(("pinned", "policy"), [(True, "IfNotPresent"), (False, "Always")])
def test_what_is_pinned_is_fetched_once_and_a_tag_each_time(pinned: bool, policy: str) -> None:
    assert container(pinned=pinned)["imagePullPolicy"] == policy


def test_the_container_has_the_functions_name_port_and_image() -> None:
    one = container()
    assert (one["name"], one["image"]) == ("greet", DIGEST)
    assert one["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]


def test_variables_are_sorted_and_the_process_wins_over_the_variable() -> None:
    names = [one["name"] for one in container(env_vars={"b": "1", "a": "2"})["env"] if "value" in one]
    assert names == sorted(names)
    assert environment(env_process="cat", env_vars={"fprocess": "tac"})["fprocess"] == "cat"
    assert environment(env_vars={"fprocess": "tac"})["fprocess"] == "tac"


def test_one_timeout_sets_every_limit_and_the_user_may_set_each() -> None:
    found = environment(annotations={"stoker.dev/timeout": "20m"})
    assert [found[name] for name in ("exec_timeout", "read_timeout", "write_timeout")] == ["20m"] * 3
    assert environment(env_vars={"write_timeout": "7s"})["write_timeout"] == "7s"


def test_the_platforms_own_variables_cannot_be_forged() -> None:
    found = environment(env_vars={"OPENFAAS_NAME": "other", "STOKER_CONCURRENCY": "9"})
    assert (found["OPENFAAS_NAME"], found["OPENFAAS_NAMESPACE"], found["STOKER_CONCURRENCY"]) == ("greet", "fn", "0")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 60 + 5 + 10),
        ({"annotations": {"stoker.dev/timeout": "20m"}}, 1200 + 5 + 10),
        ({"env_vars": {"write_timeout": "90"}}, 90 + 5 + 10),
        ({"env_vars": {"healthcheck_interval": "20s"}}, 60 + 20 + 10),
        ({"env_vars": {"healthcheck_interval": "soon"}}, 60 + 30 + 10),
    ],
)
def test_a_pod_may_take_its_longest_call_to_end(fields: dict[str, Any], seconds: int) -> None:
    assert grace_seconds(spec(**fields)) == seconds
    assert pod(**fields)["terminationGracePeriodSeconds"] == seconds


def test_functions_are_confined() -> None:
    one = pod()
    assert one["automountServiceAccountToken"] is False
    assert one["enableServiceLinks"] is False
    assert one["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 12000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    inside = one["containers"][0]["securityContext"]
    assert inside["allowPrivilegeEscalation"] is False
    assert inside["capabilities"] == {"drop": ["ALL"]}


def test_the_user_id_may_be_left_to_the_cluster() -> None:
    assert "runAsUser" not in pod(settings=Settings(run_as_user=None))["securityContext"]


def test_a_service_account_is_used_and_its_token_mounted_only_where_it_is_named() -> None:
    one = pod(annotations={"com.openfaas.serviceaccount": "reader"})
    assert (one["serviceAccountName"], one["automountServiceAccountToken"]) == ("reader", True)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_read_only_root_has_a_writable_tmp(read_only: bool) -> None:
    one = pod(read_only_root_filesystem=read_only)
    assert one["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is read_only
    assert one.get("volumes", []) == ([{"name": "temp", "emptyDir": {}}] if read_only else [])
    mounts = one["containers"][0].get("volumeMounts", [])
    assert mounts == ([{"name": "temp", "mountPath": "/tmp"}] if read_only else [])


def test_secrets_are_files_and_pull_secrets_are_not() -> None:
    one = pod(mounts=Mounts(pull=("registry",), files=("a", "b")))
    assert one["imagePullSecrets"] == [{"name": "registry"}]
    assert one["volumes"] == [
        {"name": "projected-secrets", "projected": {"sources": [{"secret": {"name": "a"}}, {"secret": {"name": "b"}}]}}
    ]
    mounted = one["containers"][0]["volumeMounts"]
    assert mounted == [{"name": "projected-secrets", "mountPath": "/var/openfaas/secrets", "readOnly": True}]


def test_secrets_are_sorted_by_their_type() -> None:
    found = mounts_of([("a", "Opaque", ("k",)), ("r", "kubernetes.io/dockerconfigjson", (".dockerconfigjson",))])
    assert found == Mounts(pull=("r",), files=("a",))


def test_two_secrets_with_one_key_are_refused_and_both_are_named() -> None:
    with pytest.raises(BadInput, match="'a' and 'b' both hold the key 'k'"):
        mounts_of([("a", "Opaque", ("k",)), ("b", "Opaque", ("x", "k"))])
    assert mounts_of([("a", "Opaque", ("k",)), ("a", "Opaque", ("k",))]).files == ("a", "a")


@pytest.mark.parametrize(
    ("fields", "resources"),
    [
        ({}, {}),
        ({"limits": Resources(memory="0256Mi")}, {"limits": {"memory": "0256Mi"}}),
        (
            {"limits": Resources(cpu="1"), "requests": Resources(cpu="10m", memory="1Gi")},
            {"limits": {"cpu": "1"}, "requests": {"cpu": "10m", "memory": "1Gi"}},
        ),
        ({"requests": Resources(nvidia_gpu="1")}, {"limits": {"nvidia.com/gpu": "1"}}),
    ],
)
def test_quantities_are_passed_on_as_given(fields: dict[str, Any], resources: dict[str, Any]) -> None:
    assert container(**fields)["resources"] == resources


def test_constraints_choose_nodes() -> None:
    assert pod(constraints=["zone=a", "disk=ssd"])["nodeSelector"] == {"zone": "a", "disk": "ssd"}
    assert "nodeSelector" not in pod()


@pytest.mark.parametrize("constraint", ["zone", "node.os == linux", "=a", "zone=a=b"])
def test_a_constraint_that_cannot_be_kept_is_refused(constraint: str) -> None:
    with pytest.raises(BadInput, match="constraint"):
        made(constraints=[constraint])


def test_probes_are_the_watchdogs_pages() -> None:
    one = container()
    assert one["readinessProbe"]["httpGet"] == {"path": "/_/ready", "port": 8080, "scheme": "HTTP"}
    assert one["livenessProbe"]["httpGet"]["path"] == one["startupProbe"]["httpGet"]["path"] == "/_/health"
    assert (one["readinessProbe"]["periodSeconds"], one["readinessProbe"]["failureThreshold"]) == (2, 3)
    assert one["livenessProbe"]["periodSeconds"] * one["livenessProbe"]["failureThreshold"] == 60
    assert one["startupProbe"]["failureThreshold"] == 60


@pytest.mark.parametrize(
    ("annotation", "probe", "field", "value"),
    [
        ("com.openfaas.ready.http.periodSeconds", "readinessProbe", "periodSeconds", 7),
        ("com.openfaas.ready.http.failureThreshold", "readinessProbe", "failureThreshold", 7),
        ("com.openfaas.ready.http.successThreshold", "readinessProbe", "successThreshold", 7),
        ("com.openfaas.ready.http.initialDelaySeconds", "readinessProbe", "initialDelaySeconds", 7),
        ("com.openfaas.ready.http.timeoutSeconds", "readinessProbe", "timeoutSeconds", 7),
        ("com.openfaas.health.http.failureThreshold", "livenessProbe", "failureThreshold", 7),
        ("stoker.dev/start_timeout", "startupProbe", "failureThreshold", 7),
    ],
)
def test_probe_numbers_come_from_annotations(annotation: str, probe: str, field: str, value: int) -> None:
    assert container(annotations={annotation: str(value)})[probe][field] == value


def test_probe_paths_come_from_annotations_and_are_checked() -> None:
    one = container(annotations={"com.openfaas.ready.http.path": "/up", "com.openfaas.health.http.path": "/live"})
    assert one["readinessProbe"]["httpGet"]["path"] == "/up"
    assert one["livenessProbe"]["httpGet"]["path"] == "/live"
    with pytest.raises(BadInput, match="path"):
        made(annotations={"com.openfaas.ready.http.path": "//x/../y"})


def test_liveness_can_be_switched_off() -> None:
    assert "livenessProbe" not in container(annotations={"com.openfaas.health.http.failureThreshold": "0"})


def test_the_kubelet_counts_bad_answers_and_the_watchdog_does_not_count_them_before() -> None:
    found = environment(annotations={"com.openfaas.ready.http.failureThreshold": "5"})
    assert (found["STOKER_HEALTH_FAILURES"], found["STOKER_HEALTH_SUCCESSES"]) == ("1", "1")
    assert found["STOKER_REPLACE_AFTER"] == "1ms"


def test_the_service_is_inside_only_and_goes_with_its_deployment() -> None:
    one = service(spec(), Owner("apps/v1", "Deployment", "the-uid"))
    assert one["spec"]["type"] == "ClusterIP"
    assert one["spec"]["selector"] == {"faas_function": "greet"}
    assert one["spec"]["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080, "targetPort": 8080}]
    assert [owner["uid"] for owner in one["metadata"]["ownerReferences"]] == ["the-uid"]


def test_a_name_that_no_service_can_have_is_refused_before_anything_is_made() -> None:
    with pytest.raises(BadInput, match="begin it with a letter"):
        made(service="1st")


@pytest.mark.parametrize(
    ("annotations", "operators", "seconds"),
    [
        ({}, 120.0, 120),
        ({}, 10.0, 90),
        ({"stoker.dev/start_timeout": "5m"}, 120.0, 330),
        ({"stoker.dev/deploy_deadline": "7s"}, 120.0, 7),
    ],
)
def test_a_rollout_has_time_for_one_start_at_least_unless_the_function_says_otherwise(
    annotations: dict[str, str], operators: float, seconds: int
) -> None:
    found = made(settings=Settings(deploy_deadline=operators), annotations=annotations)
    assert found["spec"]["progressDeadlineSeconds"] == seconds


@pytest.mark.parametrize("text", ["0s", "2h", "soon", "-1s"])
def test_a_deadline_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="deploy_deadline"):
        spec(annotations={"stoker.dev/deploy_deadline": text}).check()


def test_a_rollback_by_the_platform_leaves_the_pods_as_they_are() -> None:
    before = made(restart="r")
    release = Release(spec(), DIGEST, True, Mounts(), "one", 9, 1, restart="r", pods_of=3)
    undone = deployment(replace(release, rolled_back=RolledBack(8, 3, "no node")))
    assert undone["spec"] == before["spec"]
    assert undone["metadata"]["annotations"]["internal.stoker.dev/revision"] == "9"
    assert "no node" in undone["metadata"]["annotations"]["internal.stoker.dev/rolled-back"]


def test_a_restart_changes_the_pods_and_nothing_else() -> None:
    before, after = made(), made(restart="now")
    assert after["spec"]["template"]["metadata"]["annotations"].pop("internal.stoker.dev/restart") == "now"
    assert before == after
