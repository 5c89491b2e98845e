"""What others change in what the operator made is set back, later each time, and left to the cluster that insists."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from pathlib import Path

import pytest
from object_server import Object, ObjectServer
from operated_functions import (
    DEPLOYMENTS,
    EVENTS,
    FUNCTIONS,
    GREET,
    IMAGE,
    SERVICES,
    ask,
    by_hand,
    image,
    is_told,
    nobody,
    operated,
    ready,
    revision,
    spec,
    told_events,
    until,
)

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries


async def test_a_service_that_was_deleted_by_hand_comes_back_with_the_next_resync(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        store.remove(f"{SERVICES}/greet")
        await provider.operator.resync()
        assert store.objects[f"{SERVICES}/greet"]["metadata"]["ownerReferences"][0]["kind"] == "Function"


async def test_one_service_that_cannot_be_repaired_hinders_no_other(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path) as (provider,):
        for name in "abc":
            ask(store, name)
        await until(lambda: all(is_told(store, name) for name in "abc"))
        for name in "abc":
            store.put(f"{SERVICES}/{name}", store.objects[f"{SERVICES}/{name}"] | {"spec": {"type": "NodePort"}})
        store.refused.add(("PATCH", f"{SERVICES}/a"))
        await provider.operator.resync()
        assert [store.objects[f"{SERVICES}/{name}"]["spec"]["type"] for name in "bc"] == ["ClusterIP"] * 2


async def test_what_is_changed_in_a_deployment_by_hand_is_set_back_by_one_write_and_told(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with operated(store, tmp_path):
        ask(store)
        await until(lambda: is_told(store))
        asked = deepcopy(store.objects[f"{DEPLOYMENTS}/greet"]["spec"])
        store.requests.clear()
        by_hand(store, "evil")
        await until(lambda: told_events(store))
        assert store.objects[f"{DEPLOYMENTS}/greet"]["spec"] == asked and revision(store) == 1
        field = "spec.template.spec.containers.0.image"
        assert told_events(store) == [("Function", "SetBack", f"set back what was changed in the Deployment: {field}")]
        assert store.objects[f"{FUNCTIONS}/greet"]["status"]["setBack"] == 1
        change = ("PATCH", f"{DEPLOYMENTS}/greet")  # tried by a dry run, then done
        assert store.writes == [change, change, ("PATCH", f"{FUNCTIONS}/greet/status"), ("POST", EVENTS)]
        await asyncio.sleep(0.7)  # it is looked at once more
        assert len(store.writes) == 4


@pytest.mark.parametrize("label", ["app.kubernetes.io/managed-by", "faas_function"])
async def test_a_label_that_is_lost_does_not_lose_the_function(store: ObjectServer, tmp_path: Path, label: str) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        body = deepcopy(store.objects[f"{DEPLOYMENTS}/greet"])
        del body["metadata"]["labels"][label]
        store.put(f"{DEPLOYMENTS}/greet", body)
        await until(lambda: told_events(store))
        assert label in store.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["labels"]
        assert [status.name for status in provider.list("fn")] == ["greet"]
        assert told_events(store)[0][1:] == (
            "SetBack",
            f"set back what was changed in the Deployment: metadata.labels.{label}",
        )


async def test_replicas_and_restarts_are_whose_they_were_last(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        await provider.restart(GREET)
        body = deepcopy(store.objects[f"{DEPLOYMENTS}/greet"])
        body["spec"]["replicas"] = 3
        body["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
        store.put(f"{DEPLOYMENTS}/greet", body)
        await until(lambda: provider.list("fn")[0].replicas == 3)
        await asyncio.sleep(0.2)
        assert store.objects[f"{DEPLOYMENTS}/greet"]["spec"] == body["spec"] and not told_events(store)


@pytest.mark.parametrize("pause", [0.01, 0.8])
async def test_who_changes_it_again_and_again_is_answered_later_each_time(
    store: ObjectServer, tmp_path: Path, pause: float
) -> None:
    async with operated(store, tmp_path):
        ask(store)
        await until(lambda: is_told(store))
        rounds, end = 0, asyncio.get_running_loop().time() + 6
        while asyncio.get_running_loop().time() < end:
            if image(store) != "evil":
                by_hand(store, "evil")
                rounds += 1
            await asyncio.sleep(pause)
        assert 2 <= rounds <= 5  # at once, and after 0.5, 1, 2, 4 s


@pytest.mark.parametrize("times", [2, 7])
async def test_that_others_write_meanwhile_is_nothing_to_tell(store: ObjectServer, tmp_path: Path, times: int) -> None:
    async with operated(store, tmp_path):
        ask(store)
        await until(lambda: is_told(store))
        others = iter(range(times))

        async def come_between(method: str, path: str) -> None:
            if (method, path) == ("PATCH", f"{DEPLOYMENTS}/greet") and next(others, None) is not None:
                store.put(path, store.objects[path])

        store.answer_late = come_between
        by_hand(store, "evil")
        await until(lambda: image(store) == IMAGE and told_events(store))
        assert [reason for _, reason, _ in told_events(store)] == ["SetBack"]
        assert ready(store)["reason"] == "Deploying"
        assert store.objects[f"{FUNCTIONS}/greet"]["status"]["conditions"][1]["status"] == "False"


async def test_what_the_cluster_insists_on_is_left_to_it(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        store.mutate = lambda kept: _with_image(kept, "mirror")
        by_hand(store, "mirror")
        await until(lambda: ("PATCH", f"{DEPLOYMENTS}/greet") in store.requests)
        await asyncio.sleep(0.1)
        version = store.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["resourceVersion"]
        store.requests.clear()
        await provider.operator.resync()
        await asyncio.sleep(0.1)
        assert store.writes == [] and not told_events(store)
        assert store.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["resourceVersion"] == version
        store.requests.clear()
        await provider.scale(GREET, 3)
        await asyncio.sleep(0.2)
        assert store.writes.count(("PATCH", f"{DEPLOYMENTS}/greet")) == 1  # and none of the operator's
        store.mutate = lambda kept: kept
        by_hand(store, "other")
        await until(lambda: image(store) == IMAGE)


async def test_what_the_cluster_insists_on_hides_no_change_beside_it(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path):
        ask(store, env_vars={"A": "1"})
        await until(lambda: is_told(store))
        store.mutate = _with_a_variable
        edited = _with_a_variable(deepcopy(store.objects[f"{DEPLOYMENTS}/greet"]))
        store.put(f"{DEPLOYMENTS}/greet", edited)
        await until(lambda: ("PATCH", f"{DEPLOYMENTS}/greet") in store.requests)
        await asyncio.sleep(0.1)
        assert variables(store) == {"A": "1", "INSISTED": "yes"} and not told_events(store)
        changed = deepcopy(store.objects[f"{DEPLOYMENTS}/greet"])
        for variable in changed["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "A":
                variable["value"] = "evil"
        store.put(f"{DEPLOYMENTS}/greet", changed)
        await until(lambda: variables(store)["A"] == "1")
        assert variables(store) == {"A": "1", "INSISTED": "yes"}
        await until(lambda: len(told_events(store)) == 1)


def variables(store: ObjectServer) -> dict[str, str]:
    """Those of A and INSISTED that the Deployment has."""
    container = store.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]
    return {one["name"]: one["value"] for one in container["env"] if one["name"] in ("A", "INSISTED")}


def _with_a_variable(kept: Object) -> Object:
    if kept.get("kind") == "Deployment":
        env = kept["spec"]["template"]["spec"]["containers"][0]["env"]
        if not any(one["name"] == "INSISTED" for one in env):
            env.append({"name": "INSISTED", "value": "yes"})
    return kept


def _with_image(kept: Object, image: str) -> Object:
    """What a webhook does to all Deployments."""
    if kept.get("kind") == "Deployment":
        kept["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return kept


async def test_a_deploy_without_the_operator_sets_it_back_too(store: ObjectServer, tmp_path: Path) -> None:
    plain = KubernetesProvider(await open_api(store.kubeconfig(tmp_path)), ("fn",), Registries())
    await plain.start(nobody)
    try:
        await plain.deploy(spec(), create=True)
        by_hand(store, "evil")
        await asyncio.sleep(0.1)
        assert image(store) == "evil"
        assert await plain.deploy(spec(), create=False) == 1
        assert image(store) == IMAGE
    finally:
        await plain.close()


@pytest.mark.parametrize("change", [{"selector": {"a": "b"}}, {"ports": []}, {"type": "NodePort"}])
async def test_what_is_changed_in_a_service_is_set_back_with_the_next_resync(
    store: ObjectServer, tmp_path: Path, change: Object
) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        asked = deepcopy(store.objects[f"{SERVICES}/greet"])
        store.put(f"{SERVICES}/greet", deepcopy(asked) | {"spec": asked["spec"] | {"clusterIP": "10.0.0.1"} | change})
        store.requests.clear()
        await provider.operator.resync()
        assert store.objects[f"{SERVICES}/greet"]["spec"] == asked["spec"] | {"clusterIP": "10.0.0.1"}
        await provider.operator.resync()
        assert store.writes == [("PATCH", f"{SERVICES}/greet")] * 2  # tried by a dry run, then done


async def test_what_the_cluster_insists_on_in_a_service_is_left_to_it(
    store: ObjectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        store.mutate = _as_node_port
        service = store.put(f"{SERVICES}/greet", _as_node_port(deepcopy(store.objects[f"{SERVICES}/greet"])))
        version = service["metadata"]["resourceVersion"]
        store.requests.clear()
        for _ in range(3):
            await provider.operator.resync()
        assert store.writes == [("PATCH", f"{SERVICES}/greet")]  # a dry run
        assert store.objects[f"{SERVICES}/greet"]["metadata"]["resourceVersion"] == version
        assert "set back" not in caplog.text and "insists on another value of spec.type" in caplog.text
        store.put(f"{SERVICES}/greet", service | {"spec": service["spec"] | {"selector": {"a": "b"}}})
        await provider.operator.resync()
        assert store.objects[f"{SERVICES}/greet"]["spec"] == service["spec"]


def _as_node_port(kept: Object) -> Object:
    """What a webhook does to all Services."""
    if kept.get("kind") == "Service":
        kept["spec"]["type"] = "NodePort"
    return kept
