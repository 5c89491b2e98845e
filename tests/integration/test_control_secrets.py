"""`/system/secrets` over a real socket: bytes in, names out, restarts where a value changed."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_harness import GREET, Control, assert_error, running_control

from stoker_sdk.names import FunctionKey


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


def raw(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def listed(control: Control) -> list[dict[str, str]]:
    async with control.client.get("/system/secrets?namespace=openfaas-fn") as response:
        assert response.status == 200
        found: list[dict[str, str]] = await response.json()
        return found


async def test_a_secret_goes_in_and_only_its_name_comes_out(control: Control) -> None:
    assert await listed(control) == []
    async with control.client.post("/system/secrets", json={"name": "db.url", "value": "s3cret"}) as response:
        assert (response.status, await response.read()) == (202, b"")
    assert await listed(control) == [{"name": "db.url", "namespace": "openfaas-fn"}]
    assert control.secrets.read("openfaas-fn", "db.url") == b"s3cret"


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"value": " kept \n"}, b" kept \n"),
        ({"rawValue": raw(b"\x00\xff\n")}, b"\x00\xff\n"),
        ({"value": "text", "rawValue": raw(b"text\n")}, b"text\n"),
        ({"value": "text", "rawValue": ""}, b"text"),
        ({"value": None, "rawValue": None}, b""),
        ({"VALUE": "x", "namespace": "openfaas-fn"}, b"x"),
    ],
)
async def test_the_bytes_are_stored_as_they_came_and_raw_ones_win(
    control: Control, fields: dict[str, Any], stored: bytes
) -> None:
    async with control.client.post("/system/secrets", json={"name": "db"} | fields) as response:
        assert response.status == 202
    assert control.secrets.read("openfaas-fn", "db") == stored


async def test_creating_what_exists_is_a_conflict_and_changes_nothing(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"old")
    async with control.client.post("/system/secrets", json={"name": "db", "value": "new"}) as response:
        await assert_error(response, 409, "conflict", "'db'")
    assert control.secrets.read("openfaas-fn", "db") == b"old"


async def test_replacing_and_deleting_what_is_missing_is_not_found(control: Control) -> None:
    for method in ("PUT", "DELETE"):
        async with control.client.request(method, "/system/secrets", json={"name": "db"}) as response:
            await assert_error(response, 404, "not-found", "'db'")


async def test_a_secret_is_replaced_and_deleted(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"old")
    async with control.client.put("/system/secrets", json={"name": "db", "value": "new"}) as response:
        assert (response.status, await response.read()) == (202, b"")
    assert control.secrets.read("openfaas-fn", "db") == b"new"
    async with control.client.delete("/system/secrets", json={"name": "db"}) as response:
        assert (response.status, await response.read()) == (202, b"")
    assert await listed(control) == []


@pytest.mark.parametrize("name", ["", None, "../key", "a/b", ".hidden", "Upper", "x" * 254, "a\u0000b", "a b", "é"])
async def test_a_bad_name_is_unprocessable_for_every_verb(control: Control, name: str | None) -> None:
    for method in ("POST", "PUT", "DELETE"):
        body = {"name": name, "value": "v"}
        async with control.client.request(method, "/system/secrets", json=body) as response:
            await assert_error(response, 422, "unprocessable")
    assert await listed(control) == []


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b'{"name": 7}',
    b'{"name": "db", "rawValue": "%%%"}',
    b'{"name": "db", "value": {"a": 1}}',
    b'{"name": "db", "namespace": "nope"}',
    b'{"name": "db", "namespace": "../.."}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
async def test_a_bad_body_is_refused_without_its_value(control: Control, body: bytes) -> None:
    for method in ("POST", "PUT", "DELETE"):
        async with control.client.request(method, "/system/secrets", data=body) as response:
            await assert_error(response, 400, "bad-input")
            assert "%%%" not in await response.text()


async def test_one_mebibyte_is_taken_in_both_forms_at_once_and_more_is_not(control: Control) -> None:
    most = b"x" * 1024 * 1024
    body = {"name": "big", "value": most.decode(), "rawValue": raw(most)}
    async with control.client.post("/system/secrets", json=body) as response:
        assert response.status == 202
    async with control.client.put("/system/secrets", json=body | {"rawValue": raw(most + b"x")}) as response:
        await assert_error(response, 422, "unprocessable", "1048576")
    async with control.client.put("/system/secrets", json=body | {"value": "x" * 4 * 1024 * 1024}) as response:
        await assert_error(response, 413, "too-large")
    assert control.secrets.read("openfaas-fn", "big") == most


async def test_a_change_restarts_the_functions_that_use_the_secret_and_no_others(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"old")
    await control.deploy("greet", secrets=["db"])
    await control.deploy("other")
    before = instances(control, "greet"), instances(control, "other")
    async with control.client.put("/system/secrets", json={"name": "db", "value": "new"}) as response:
        assert response.status == 202
    assert instances(control, "greet") != before[0]
    assert instances(control, "other") == before[1]
    assert control.provider.get(GREET).replicas == 1


async def test_deleting_and_creating_restarts_too_for_that_is_how_faas_cli_applies(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"old")
    await control.deploy("greet", secrets=["db"])
    before = instances(control, "greet")
    async with control.client.delete("/system/secrets", json={"name": "db"}) as response:
        assert response.status == 202
    assert instances(control, "greet") == before
    async with control.client.post("/system/secrets", json={"name": "db", "value": "new"}) as response:
        assert response.status == 202
    assert instances(control, "greet") != before


async def test_no_value_reaches_the_log(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for body in ({"name": "db", "value": "s3cret-1"}, {"name": "../db", "value": "s3cret-2"}):
        for method in ("POST", "PUT", "PUT", "DELETE"):
            async with control.client.request(method, "/system/secrets", json=body) as response:
                assert "s3cret" not in await response.text()
    assert "s3cret" not in caplog.text


def instances(control: Control, name: str) -> list[str]:
    condition = control.provider.get(FunctionKey("openfaas-fn", name)).stoker
    assert condition is not None
    return [instance.id for instance in condition.instances]
