"""`/system/namespace/NAME` over a real socket: several namespaces, what is in them, what a deleted one leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_harness import Control, assert_error, running_control

from stoker_gateway.providers.memory import MemoryProvider
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

MARK = {"openfaas": "1"}


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


async def create(control: Control, name: str, **fields: Any) -> None:
    body = {"name": name, "labels": MARK} | fields
    async with control.client.post("/system/namespace/", json=body) as response:
        assert (response.status, await response.read()) == (201, b"")


async def names(control: Control) -> Any:
    async with control.client.get("/system/namespaces") as response:
        return await response.json()


async def test_a_created_namespace_is_listed_and_described_verbatim(control: Control) -> None:
    await create(control, "dev", labels=MARK | {"team": "a"}, annotations={"note": "any text\nat all"})
    assert await names(control) == ["dev", "openfaas-fn"]
    async with control.client.get("/system/namespace/dev") as response:
        assert await response.json() == {
            "name": "dev",
            "labels": MARK | {"team": "a"},
            "annotations": {"note": "any text\nat all"},
        }


@pytest.mark.parametrize("path", ["/system/namespace/", "/system/namespace"])
async def test_the_slash_at_the_end_makes_no_difference(control: Control, path: str) -> None:
    async with control.client.post(path, json={"name": "dev", "labels": MARK}) as response:
        assert response.status == 201
    async with control.client.get(path) as response:
        assert await response.json() == ["dev", "openfaas-fn"]


@pytest.mark.parametrize(
    "mark", [{"labels": MARK}, {"annotations": MARK}, {"LABELS": {"openfaas": "true"}}, {"labels": MARK | {"a": "b"}}]
)
async def test_a_label_or_an_annotation_marks_a_namespace(control: Control, mark: dict[str, Any]) -> None:
    async with control.client.post("/system/namespace/", json={"name": "dev"} | mark) as response:
        assert response.status == 201


async def test_creating_what_exists_is_a_conflict(control: Control) -> None:
    await create(control, "dev")
    for name in ("dev", "openfaas-fn"):
        async with control.client.post("/system/namespace/", json={"name": name, "labels": MARK}) as response:
            await assert_error(response, 409, "conflict", f"'{name}'")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no body"),
        (b"{", "JSON"),
        (b"[]", "JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"labels": {"openfaas": "1"}}', "name: is required"),
        (b'{"name": "dev"}', "openfaas=1"),
        (b'{"name": "dev", "labels": {"openfaas": "0"}}', "openfaas=1"),
        (b'{"name": "dev", "labels": {"openfaas": 1}}', "labels"),
        (b'{"name": 5, "labels": {"openfaas": "1"}}', "$.name"),
        (b'{"name": "../dev", "labels": {"openfaas": "1"}}', "../dev"),
        (b'{"name": "a.b", "labels": {"openfaas": "1"}}', "'a.b'"),
        (b'{"name": "Dev", "labels": {"openfaas": "1"}}', "'Dev'"),
        (b'{"name": "openfaas", "labels": {"openfaas": "1"}}', "belongs to the platform"),
        (b'{"name": "kube-system", "labels": {"openfaas": "1"}}', "belongs to the platform"),
        (b'{"name": "dev", "labels": {"openfaas": "1", "a": "b c"}}', "'b c'"),
        (b'{"name": "dev", "labels": {"openfaas": "1"}, "annotations": {"a b": ""}}', "'a b'"),
    ],
)
async def test_a_bad_namespace_is_refused_and_nothing_is_written(
    control: Control, tmp_path: Path, body: bytes, words: str
) -> None:
    async with control.client.post("/system/namespace/", data=body) as response:
        await assert_error(response, 400, "bad-input", words)
    assert await names(control) == ["openfaas-fn"]
    assert not (tmp_path / "namespaces").exists()


async def test_a_body_that_is_too_large_is_refused(control: Control) -> None:
    body = {"name": "dev", "labels": MARK, "annotations": {"a": "x" * 1024 * 1024}}
    for method, path in (("POST", "/system/namespace/"), ("PUT", "/system/namespace/openfaas-fn")):
        async with control.client.request(method, path, json=body) as response:
            await assert_error(response, 413, "too-large")


async def test_an_update_removes_what_the_body_does_not_name(control: Control) -> None:
    await create(control, "dev", labels=MARK | {"team": "a"}, annotations={"note": "x"})
    async with control.client.put("/system/namespace/dev", json={"name": "dev", "labels": MARK}) as response:
        assert (response.status, await response.read()) == (202, b"")
    async with control.client.get("/system/namespace/dev") as response:
        assert await response.json() == {"name": "dev", "labels": MARK}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_changes_need_the_mark_the_right_name_and_something_to_change(control: Control, method: str) -> None:
    await create(control, "dev")
    for body, words in (
        ({"name": "dev"}, "openfaas=1"),
        ({"name": "other", "labels": MARK}, "'other'"),
        ({"labels": MARK}, "name: is required"),
    ):
        async with control.client.request(method, "/system/namespace/dev", json=body) as response:
            await assert_error(response, 400, "bad-input", words)
    async with control.client.request(method, "/system/namespace/dev") as response:
        await assert_error(response, 400, "bad-input", "no body")
    body = {"name": "nope", "labels": MARK}
    async with control.client.request(method, "/system/namespace/nope", json=body) as response:
        await assert_error(response, 404, "not-found", "'nope'")
    assert await names(control) == ["dev", "openfaas-fn"]


async def test_describing_what_is_missing_is_not_found(control: Control) -> None:
    for name in ("nope", "..%2Fdev", "%00", "kube-system"):
        head = f"GET /system/namespace/{name} HTTP/1.1\nHost: c\nConnection: close\nAuthorization: {BASIC}"
        assert (await control.raw(head)).startswith(b"HTTP/1.1 404 "), name


async def test_functions_and_secrets_of_one_name_in_two_namespaces_are_independent(control: Control) -> None:
    await create(control, "dev")
    for namespace, value in (("openfaas-fn", "one"), ("dev", "two")):
        secret = {"name": "key", "namespace": namespace, "value": value}
        async with control.client.post("/system/secrets", json=secret) as response:
            assert response.status == 202
        await control.deploy(namespace=namespace, secrets=["key"], envVars={"WHERE": value})
        await control.provider.print(FunctionKey(namespace, "greet"), f"from {value}\n")
    async with control.client.post(
        "/system/scale-function/greet", json={"replicas": 3, "namespace": "dev"}
    ) as response:
        assert response.status == 202
    for namespace, value, replicas in (("openfaas-fn", "one", 1), ("dev", "two", 3)):
        assert control.secrets.read(namespace, "key") == value.encode()
        async with control.client.get(f"/system/functions?namespace={namespace}") as response:
            [function] = await response.json()
        assert (function["namespace"], function["envVars"]) == (namespace, {"WHERE": value})
        assert function["replicas"] == replicas
        async with control.client.get(f"/system/logs?name=greet&namespace={namespace}") as response:
            assert json.loads(await response.text())["text"] == f"from {value}\n"
    async with control.client.delete(
        "/system/functions", json={"functionName": "greet", "namespace": "dev"}
    ) as response:
        assert response.status == 202
    assert [status.namespace for status in control.provider.list("openfaas-fn")] == ["openfaas-fn"]
    async with control.client.delete("/system/secrets", json={"name": "key", "namespace": "dev"}) as response:
        assert response.status == 202
    assert control.secrets.exists("openfaas-fn", "key")


async def test_the_namespace_of_a_change_is_that_of_the_body_and_else_that_of_the_query(control: Control) -> None:
    await create(control, "dev")
    client = control.client
    for name, body, query, where in (
        ("one", {"namespace": "dev"}, "?namespace=openfaas-fn", "dev"),
        ("two", {}, "?namespace=dev", "dev"),
        ("three", {}, "", "openfaas-fn"),
    ):
        secret, function = {"name": name, "value": "x"} | body, {"service": name, "image": "i"} | body
        for method, path, sent in (
            ("POST", "/system/secrets", secret),
            ("PUT", "/system/secrets", secret),
            ("POST", "/system/functions", function),
            ("PUT", "/system/functions", function | {"image": "i:2"}),
            ("POST", f"/system/scale-function/{name}", {"replicas": 2} | body),
        ):
            async with client.request(method, path + query, json=sent) as response:
                assert response.status == 202, (method, path, await response.text())
        status = control.provider.get(FunctionKey(where, name))
        assert (status.image, status.replicas) == ("i:2", 2)
        assert control.secrets.exists(where, name)
        for path, sent in (("/system/functions", {"functionName": name} | body), ("/system/secrets", secret)):
            async with client.delete(path + query, json=sent) as response:
                assert response.status == 202
        assert not control.secrets.exists(where, name)


async def delete(control: Control, name: str) -> int:
    body = {"name": name, "labels": MARK}
    async with control.client.delete(f"/system/namespace/{name}", json=body) as response:
        return response.status


async def test_a_deleted_namespace_takes_its_functions_and_secrets_along(control: Control) -> None:
    await create(control, "dev")
    await control.deploy()
    await control.deploy(namespace="dev")
    control.secrets.create("dev", "key", b"x")
    assert await delete(control, "dev") == 202
    assert await names(control) == ["openfaas-fn"]
    assert await delete(control, "dev") == 404
    await create(control, "dev")
    async with control.client.get("/system/functions?namespace=dev") as response:
        assert await response.json() == []
    async with control.client.get("/system/secrets?namespace=dev") as response:
        assert await response.json() == []
    assert len(control.provider.list("openfaas-fn")) == 1


async def test_the_default_namespace_cannot_be_deleted(control: Control) -> None:
    await control.deploy()
    body = {"name": "openfaas-fn", "labels": MARK}
    async with control.client.delete("/system/namespace/openfaas-fn", json=body) as response:
        await assert_error(response, 400, "bad-input", "default")
    assert len(control.provider.list("openfaas-fn")) == 1


async def test_namespaces_are_there_after_a_restart(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        await create(control, "dev", labels=MARK | {"a": "b"})
    async with running_control(tmp_path) as control, control.client.get("/system/namespace/dev") as response:
        assert (await response.json())["labels"] == MARK | {"a": "b"}


class _Stuck(MemoryProvider):
    """Removes nothing, as if the platform had been killed at that moment."""

    async def remove(self, key: FunctionKey) -> None:
        raise Unavailable("not now")


async def test_a_deletion_that_broke_off_is_hidden_and_finished_at_the_next_start(tmp_path: Path) -> None:
    async with running_control(tmp_path, provider=_Stuck()) as control:
        await create(control, "dev")
        await control.deploy(namespace="dev")
        control.secrets.create("dev", "key", b"x")
        assert await delete(control, "dev") == 503
        assert await names(control) == ["openfaas-fn"]
        for request in (
            control.client.post("/system/functions", json={"service": "a", "image": "i", "namespace": "dev"}),
            control.client.post("/system/secrets", json={"name": "a", "namespace": "dev", "value": "x"}),
        ):
            async with request as response:
                await assert_error(response, 400, "bad-input", "'dev'")
        async with control.client.post("/system/namespace/", json={"name": "dev", "labels": MARK}) as response:
            await assert_error(response, 409, "conflict", "being deleted")
    async with running_control(tmp_path) as control:
        assert await names(control) == ["openfaas-fn"]
        assert control.secrets.names("dev") == []
        assert list((tmp_path / "namespaces").iterdir()) == []
        await create(control, "dev")


class _Slow(MemoryProvider):
    def __init__(self) -> None:
        super().__init__()
        self.entered, self.leave = asyncio.Event(), asyncio.Event()

    async def deploy(self, spec: Any, *, create: bool) -> int:
        self.entered.set()
        await self.leave.wait()
        return await super().deploy(spec, create=create)


async def test_a_deploy_on_its_way_leaves_nothing_in_a_deleted_namespace(tmp_path: Path) -> None:
    provider = _Slow()
    async with running_control(tmp_path, provider=provider) as control:
        await create(control, "dev")
        deploying = asyncio.create_task(control.deploy(namespace="dev"))
        await provider.entered.wait()
        deleting = asyncio.create_task(delete(control, "dev"))
        while "dev" in await names(control):
            await asyncio.sleep(0.01)
        assert not deleting.done()
        provider.leave.set()
        await deploying
        assert await deleting == 202
    assert provider.list("dev") == []


async def test_a_file_that_cannot_be_read_is_set_aside_and_its_namespace_stays(tmp_path: Path) -> None:
    folder = tmp_path / "namespaces"
    folder.mkdir()
    (folder / "dev.json").write_text("{")
    (folder / "Not a name.json").write_text("{}")
    (folder / "other.json").write_text('{"namespace": {"name": "elsewhere"}}')
    async with running_control(tmp_path) as control:
        assert await names(control) == ["dev", "openfaas-fn", "other"]
    assert len(list((tmp_path / "set-aside").iterdir())) == 3


async def test_many_creations_of_one_name_at_once_make_one(control: Control) -> None:
    async def one() -> int:
        async with control.client.post("/system/namespace/", json={"name": "dev", "labels": MARK}) as response:
            return response.status

    statuses = await asyncio.gather(*(one() for _ in range(20)))
    assert sorted(statuses) == [201] + [409] * 19


BASIC = "Basic YWRtaW46dGhlIHBhc3N3b3Jk"
