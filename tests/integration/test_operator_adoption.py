"""Functions from before the operator: left alone by a resource of their name, taken up by their next deploy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from object_server import Object, ObjectServer
from operated_functions import (
    DEPLOYMENTS,
    FUNCTIONS,
    GREET,
    SERVICES,
    ask,
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
from stoker_sdk.errors import NotFound, StokerError


@asynccontextmanager
async def deployed_without_the_operator(store: ObjectServer, folder: Path) -> AsyncIterator[Object]:
    plain = KubernetesProvider(await open_api(store.kubeconfig(folder)), ("fn",), Registries())
    await plain.start(nobody)
    await plain.deploy(spec(env_vars={"A": "0"}), create=True)
    await plain.deploy(spec(), create=False)
    await plain.close()
    yield store.objects[f"{DEPLOYMENTS}/greet"]


async def test_a_function_that_was_deployed_without_a_resource_is_left_alone_by_one_of_its_name(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with deployed_without_the_operator(store, tmp_path) as before, operated(store, tmp_path) as (provider,):
        assert [status.name for status in provider.list("fn")] == ["greet"]
        ask(store)
        await until(lambda: is_told(store))
        assert ready(store)["reason"] == "NameTaken" and "deployed without this resource" in ready(store)["message"]
        assert store.objects[f"{DEPLOYMENTS}/greet"] == before
        store.remove(f"{FUNCTIONS}/greet")
        await asyncio.sleep(0.1)
        await provider.remove(GREET)
        assert f"{DEPLOYMENTS}/greet" not in store.objects
        with pytest.raises(NotFound):
            await provider.remove(GREET)


async def test_a_deploy_gives_it_a_resource_and_touches_no_pod(store: ObjectServer, tmp_path: Path) -> None:
    async with deployed_without_the_operator(store, tmp_path) as before, operated(store, tmp_path, 3) as providers:
        assert await providers[0].deploy(spec(), create=False) == 2
        await until(lambda: is_told(store))
        uid = store.objects[f"{FUNCTIONS}/greet"]["metadata"]["uid"]
        for folder in (DEPLOYMENTS, SERVICES):
            (owner,) = store.objects[f"{folder}/greet"]["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("Function", uid)
        assert store.objects[f"{DEPLOYMENTS}/greet"]["spec"] == before["spec"] and not told_events(store)
        assert [one.number for one in providers[0].revisions(GREET)] == [1, 2]
        assert await providers[1].deploy(spec(env_vars={"A": "1"}), create=False) == 3
        await until(lambda: is_told(store))
        assert await providers[2].rollback(GREET, 2) == 4
        ask(store, env_vars={"B": "1"})
        await until(lambda: revision(store) == 5)


@pytest.mark.parametrize("same", [False, True])
async def test_a_deploy_gives_it_to_the_resource_that_somebody_has_made_meanwhile(
    store: ObjectServer, tmp_path: Path, same: bool
) -> None:
    async with deployed_without_the_operator(store, tmp_path), operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        assert ready(store)["reason"] == "NameTaken"
        asked = spec() if same else spec(env_vars={"A": "1"})
        assert await provider.deploy(asked, create=False) == (2 if same else 3)
        await until(lambda: ready(store)["reason"] == "Deploying")
        (owner,) = store.objects[f"{DEPLOYMENTS}/greet"]["metadata"]["ownerReferences"]
        assert owner["uid"] == store.objects[f"{FUNCTIONS}/greet"]["metadata"]["uid"]


async def test_what_breaks_off_is_finished_by_another_deploy_too(store: ObjectServer, tmp_path: Path) -> None:
    async with deployed_without_the_operator(store, tmp_path), operated(store, tmp_path) as (provider,):
        store.refused.add(("PATCH", f"{DEPLOYMENTS}/greet"))
        for number in range(2):
            with pytest.raises(StokerError, match="not allowed"):
                await provider.deploy(spec(env_vars={"A": f"{number}"}), create=False)
        store.refused.clear()
        assert await provider.deploy(spec(env_vars={"A": "2"}), create=False) in (3, 4)  # the operator tries it too
        await until(lambda: ready(store)["reason"] == "Deploying")


async def test_a_rollback_does_so_too_and_what_breaks_off_is_finished_by_the_operator(
    store: ObjectServer, tmp_path: Path
) -> None:
    async with deployed_without_the_operator(store, tmp_path), operated(store, tmp_path, 2) as providers:
        store.refused.add(("PATCH", f"{DEPLOYMENTS}/greet"))
        with pytest.raises(StokerError, match="not allowed"):
            await providers[0].rollback(GREET, 1)
        store.refused.clear()
        await until(lambda: "ownerReferences" in store.objects[f"{DEPLOYMENTS}/greet"]["metadata"])
        assert revision(store) == 2
        assert await providers[1].rollback(GREET, 1) == 3
