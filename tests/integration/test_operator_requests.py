"""What the operator asks of the cluster and writes: with one, with several at once, and with the API beside it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from object_server import Object, ObjectServer
from operated_functions import (
    DEPLOYMENTS,
    FUNCTIONS,
    GREET,
    PODS,
    SERVICES,
    ask,
    is_told,
    nobody,
    operated,
    ready,
    revision,
    spec,
    until,
)

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_sdk.errors import Conflict, NotFound
from stoker_sdk.function_resource import GROUP
from stoker_sdk.names import FunctionKey


async def test_a_resource_becomes_a_deployment_and_a_service_by_three_writes(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with operated(store, tmp_path):
        function = ask(store)
        await until(lambda: is_told(store))
        mine = {"apiVersion": f"{GROUP}/v1", "kind": "Function", "name": "greet", "controller": True}
        for folder in (DEPLOYMENTS, SERVICES):
            owners = store.objects[f"{folder}/greet"]["metadata"]["ownerReferences"]
            assert owners == [mine | {"uid": function["metadata"]["uid"]}]
        assert store.writes == [("POST", DEPLOYMENTS), ("POST", SERVICES), ("PATCH", f"{FUNCTIONS}/greet/status")]
        assert (ready(store)["status"], ready(store)["reason"]) == ("False", "Deploying")


async def test_where_nothing_differs_a_resync_asks_for_the_services_and_writes_nothing(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with operated(store, tmp_path) as (provider,):
        for number in range(20):
            ask(store, f"f{number}")
        await until(lambda: all(is_told(store, f"f{number}") for number in range(20)))
        store.requests.clear()
        await provider.operator.resync()
        assert ("GET", SERVICES) in store.requests and store.writes == []
    store.requests.clear()
    async with operated(store, tmp_path):
        await until(lambda: ("GET", SERVICES) in store.requests)
        await asyncio.sleep(0.2)
        asked = Counter(store.requests)
        lists = {("GET", path): 2 for path in (FUNCTIONS, DEPLOYMENTS, PODS)}  # and a watch of each
        assert asked == lists | {("GET", f"/apis/{GROUP}/v1"): 1, ("GET", SERVICES): 1}


async def test_both_ways_make_the_same_objects_but_for_their_owner(store: ObjectServer, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"env_vars": {"B": "2", "A": "1"}, "labels": {"x": "y"}, "annotations": {"n": "z"}}
    plain = KubernetesProvider(await open_api(store.kubeconfig(tmp_path)), ("fn",), Registries())
    await plain.start(nobody)
    await plain.deploy(spec(**fields), create=True)
    by_api = essence(store)
    await plain.remove(GREET)
    await plain.close()
    async with operated(store, tmp_path) as (provider,):
        ask(store, **fields)
        await until(lambda: is_told(store))
        assert essence(store) == by_api
        await provider.remove(GREET)
        await provider.deploy(spec(**fields), create=True)
        assert essence(store) == by_api


def essence(store: ObjectServer) -> list[Object]:
    """Without what no two objects have in common."""
    found = []
    for folder in (DEPLOYMENTS, SERVICES):
        one = store.objects[f"{folder}/greet"]
        annotations = one["metadata"]["annotations"]
        annotations = {
            key: value for key, value in annotations.items() if not key.endswith(("/id", "/history", "/record"))
        }
        template = one["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
        template.pop("internal.stoker.dev/id", None)
        found.append({"labels": one["metadata"]["labels"], "annotations": annotations, "spec": one["spec"]})
    return found


async def test_several_at_once_make_one_deployment_and_one_revision_for_each_change(
    store: ObjectServer, tmp_path: Path
) -> None:
    async def late(method: str, path: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))

    store.answer_late = late
    names = [f"f{number}" for number in range(10)]
    async with operated(store, tmp_path, 3):
        for change in range(1, 5):
            for name in names:
                ask(store, name, env_vars={"CHANGE": f"{change}"})
            await until(lambda: all(revision(store, name) >= change for name in names))  # noqa: B023
            await until(lambda: all(is_told(store, name) for name in names))
        await asyncio.sleep(0.3)
        assert [revision(store, name) for name in names] == [4] * len(names)
        assert all(ready(store, name)["reason"] == "Deploying" for name in names)


async def test_deploys_by_several_apis_and_kubectl_at_once_end_as_the_resource_says(
    store: ObjectServer, tmp_path: Path
) -> None:
    async def late(method: str, path: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))

    store.answer_late = late
    async with operated(store, tmp_path, 3) as providers:
        await providers[0].deploy(spec(), create=True)
        await until(lambda: all(one.list("fn") for one in providers))

        async def deploy(number: int) -> None:
            try:
                await providers[number % 3].deploy(spec(env_vars={"N": f"{number}"}), create=False)
            except Conflict as error:
                assert "all the time" in str(error)

        for number in range(5):
            waiting = [asyncio.ensure_future(deploy(number * 4 + each)) for each in range(4)]
            ask(store, env_vars={"KUBECTL": f"{number}"})
            await asyncio.gather(*waiting)
        await until(lambda: is_told(store))
        await asyncio.sleep(0.3)
        asked = store.objects[f"{FUNCTIONS}/greet"]["spec"]["environment"]
        container = store.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]
        ((name, value),) = asked.items()
        assert {"name": name, "value": value} in container["env"]


async def test_what_the_api_removes_is_not_brought_back(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path, 2) as (one, other):
        for _ in range(10):
            await one.deploy(spec(), create=True)
            await until(lambda: bool(other.list("fn")))
            await one.remove(GREET)
            await until(lambda: not other.list("fn"))
        await asyncio.sleep(0.2)
        assert store.objects == {}


async def test_a_resource_that_nobody_can_read_disturbs_no_other(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path) as (provider,):
        for number, forged in enumerate((None, 5, [], {"name": []}, {"name": "x" * 70000})):
            store.put(f"{FUNCTIONS}/broken-{number}", {"spec": forged, "status": forged})
        ask(store)
        await until(lambda: is_told(store))
        for number in range(5):
            await until(lambda: ready(store, f"broken-{number}").get("reason") == "Invalid")  # noqa: B023
        assert len(ready(store, "broken-4")["message"]) < 1000
        with pytest.raises(
            NotFound, match="'broken-1' has a resource, and is not deployed yet: spec: Expected `object`"
        ):
            provider.get(FunctionKey("fn", "broken-1"))
