"""`/system/function/NAME/revisions` and `…/rollback` over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_harness import GREET, Control, assert_error, running_control

from stoker_sdk.units import parse_rfc3339

PATH = "/system/function/greet"


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


async def update(control: Control, image: str, **fields: Any) -> None:
    body = {"service": "greet", "image": image} | fields
    async with control.client.put("/system/functions", json=body) as response:
        assert response.status == 202, await response.text()


async def revisions(control: Control, path: str = PATH) -> list[dict[str, Any]]:
    async with control.client.get(f"{path}/revisions") as response:
        assert response.status == 200, await response.text()
        found: list[dict[str, Any]] = await response.json()
        return found


async def roll_back(control: Control, **body: Any) -> tuple[int, int]:
    async with control.client.post(f"{PATH}/rollback", json=body) as response:
        assert response.status == 202, await response.text()
        answer = await response.json()
        assert response.headers["X-Stoker-Revision"] == str(answer["revision"])
        return answer["revision"], answer["rollbackTo"]


async def test_deploys_are_listed_with_what_changed_and_which_serves(control: Control) -> None:
    await control.deploy(envVars={"LEVEL": "debug"})
    await update(control, "example/greet:2", envVars={"LEVEL": "hush"})
    found = await revisions(control)
    times = [one.pop("createdAt") for one in found]
    assert parse_rfc3339(times[0]) <= parse_rfc3339(times[1])
    assert found == [
        {"number": 1, "image": "example/greet:1"},
        {"number": 2, "image": "example/greet:2", "changed": ["envVars.LEVEL", "image"], "serving": True},
    ]


async def test_a_rollback_is_a_new_revision_with_the_content_of_another(control: Control) -> None:
    await control.deploy(envVars={"LEVEL": "debug"}, limits={"memory": "1Mi"})
    await update(control, "example/greet:2")
    assert await roll_back(control, revision=1) == (3, 1)
    status = control.provider.get(GREET)
    assert (status.image, status.env_vars) == ("example/greet:1", {"LEVEL": "debug"})
    assert status.limits is not None and status.limits.memory == "1Mi"
    last = (await revisions(control))[-1]
    assert (last["number"], last["rollbackTo"], last["serving"]) == (3, 1, True)
    assert last["changed"] == ["envVars.LEVEL", "image", "limits.memory"]


async def test_without_a_number_it_passes_over_what_failed_and_a_second_one_undoes_the_first(control: Control) -> None:
    control.provider.break_image("broken", "no luck")
    await control.deploy()
    await update(control, "broken")
    await update(control, "example/greet:3")
    assert [one.get("failed", False) for one in await revisions(control)] == [False, True, False]
    assert await roll_back(control) == (4, 1)
    assert await roll_back(control) == (5, 3)


async def test_a_rollback_to_what_is_asked_for_already_makes_no_revision(control: Control) -> None:
    await control.deploy()
    assert await roll_back(control, revision=1) == (1, 1)
    assert len(await revisions(control)) == 1


async def test_unknown_functions_and_revisions_are_404_with_those_that_there_are(control: Control) -> None:
    async with control.client.get(f"{PATH}/revisions") as response:
        await assert_error(response, 404, "not-found", "'greet'")
    async with control.client.post(f"{PATH}/rollback", json={}) as response:
        await assert_error(response, 404, "not-found", "'greet'")
    await control.deploy()
    async with control.client.post(f"{PATH}/rollback", json={}) as response:
        await assert_error(response, 404, "not-found", "'greet' has no earlier revision")
    await update(control, "example/greet:2")
    async with control.client.post(f"{PATH}/rollback", json={"revision": 7}) as response:
        await assert_error(response, 404, "not-found", "no revision 7", "there are 1, 2")
    assert len(await revisions(control)) == 2


@pytest.mark.parametrize("revision", [-1, "1", 1.5, [1]])
async def test_what_is_no_number_of_a_revision_is_400(control: Control, revision: Any) -> None:
    await control.deploy()
    async with control.client.post(f"{PATH}/rollback", json={"revision": revision}) as response:
        await assert_error(response, 400, "bad-input", "revision")


async def test_a_secret_that_is_gone_is_named_and_the_live_version_stays(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"x")
    await control.deploy(secrets=["db"])
    await update(control, "example/greet:2")
    control.secrets.delete("openfaas-fn", "db")
    before = control.provider.get(GREET)
    async with control.client.post(f"{PATH}/rollback", json={"revision": 1}) as response:
        await assert_error(
            response, 400, "bad-input", "revision 1 cannot be put live again", "secret 'db'", "create it"
        )
    assert control.provider.get(GREET) == before
    assert len(await revisions(control)) == 2


async def test_functions_of_other_namespaces_have_a_history_of_their_own(control: Control) -> None:
    async with control.client.post("/system/namespace/", json={"name": "dev", "labels": {"openfaas": "1"}}) as response:
        assert response.status == 201
    await control.deploy()
    await control.deploy(namespace="dev", image="example/greet:7")
    await update(control, "example/greet:8", namespace="dev")
    assert len(await revisions(control)) == 1
    assert len(await revisions(control, f"{PATH}.dev")) == 2
    assert await roll_back(control, namespace="dev") == (3, 1)
    assert len(await revisions(control)) == 1
