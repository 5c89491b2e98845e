"""`/system/functions`, `/system/function/NAME` and `/system/scale-function/NAME` over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_harness import GREET, Control, assert_error, running_control

from stoker_gateway.counters import FunctionCounters
from stoker_sdk.errors import Unavailable

SPEC = {"service": "greet", "image": "example/greet:1"}


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


async def describe(control: Control, name: str = "greet", query: str = "") -> dict[str, Any]:
    async with control.client.get(f"/system/function/{name}{query}") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("application/json")
        described: dict[str, Any] = await response.json()
        return described


async def test_a_created_function_is_accepted_with_its_revision_and_no_body(control: Control) -> None:
    async with control.client.post("/system/functions", json=SPEC) as response:
        assert response.status == 202
        assert response.headers["X-Stoker-Revision"] == "1"
        assert await response.read() == b""


async def test_what_was_deployed_comes_back_verbatim(control: Control) -> None:
    sent: dict[str, Any] = {
        "envProcess": "python  index.py",
        "envVars": {"A": " b ", "EMPTY": ""},
        "constraints": ["zone=a"],
        "labels": {"team": "kitchen"},
        "annotations": {"stoker.dev/timeout": "90s", "note": "any text\nat all"},
        "limits": {"memory": "0128Mi", "cpu": "1000m", "nvidia.com/gpu": "1"},
        "requests": {"memory": "64Mi"},
        "readOnlyRootFilesystem": True,
    }
    await control.deploy(**sent)
    described = await describe(control)
    assert {key: described[key] for key in sent} == sent
    assert (described["name"], described["namespace"]) == ("greet", "openfaas-fn")
    assert (described["replicas"], described["availableReplicas"]) == (1, 1)
    assert "service" not in described and "invocationCount" not in described


async def test_created_at_is_always_present_and_zero_counts_are_not(control: Control) -> None:
    await control.deploy()
    async with control.client.post("/system/scale-function/greet", json={"replicas": 0}) as response:
        assert response.status == 202
    described = await describe(control)
    assert described["createdAt"].endswith("Z")
    assert not {"replicas", "availableReplicas", "invocationCount"} & set(described)
    assert described["stoker"]["state"] == "zero"


async def test_keys_match_in_any_case_and_unknown_ones_are_ignored(control: Control) -> None:
    body = {"SERVICE": "greet", "Image": "i", "envvars": {"A": "1"}, "registryAuth": "x", "network": "y"}
    async with control.client.post("/system/functions", json=body) as response:
        assert response.status == 202
    assert (await describe(control))["envVars"] == {"A": "1"}


async def test_null_is_taken_for_every_optional_field(control: Control) -> None:
    fields = ("labels", "annotations", "envVars", "secrets", "constraints", "limits", "requests", "namespace")
    nothing: dict[str, Any] = dict.fromkeys(fields)
    await control.deploy(**nothing)
    assert (await describe(control))["namespace"] == "openfaas-fn"


async def test_creating_what_exists_is_a_conflict(control: Control) -> None:
    await control.deploy()
    async with control.client.post("/system/functions", json=SPEC) as response:
        await assert_error(response, 409, "conflict", "'greet'", "update")


async def test_updating_what_is_missing_is_not_found_so_that_faas_cli_creates_it(control: Control) -> None:
    async with control.client.put("/system/functions", json=SPEC) as response:
        await assert_error(response, 404, "not-found", "'greet'")


async def test_an_update_counts_the_revision_and_an_unchanged_one_does_not(control: Control) -> None:
    await control.deploy()
    async with control.client.put("/system/functions", json=SPEC | {"image": "i:2"}) as response:
        assert (response.status, response.headers["X-Stoker-Revision"]) == (202, "2")
    async with control.client.put("/system/functions", json=SPEC | {"image": "i:2"}) as response:
        assert (response.status, response.headers["X-Stoker-Revision"]) == (202, "2")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no body"),
        (b"{", "JSON"),
        (b"null", "service: is required"),
        (b"[]", "JSON"),
        (b'{"service": "greet", "image": "i"} x', "JSON"),
        (b'{"service": "\xff", "image": "i"}', "JSON"),
        (b"[" * 200_000, "nested"),
        (b'{"image": "i"}', "service: is required"),
        (b'{"service": "greet"}', "image: is required"),
        (b'{"service": 5, "image": "i"}', "$.service"),
        (b'{"service": "greet", "image": "i", "labels": {"a": 1}}', "labels"),
        (b'{"service": "greet", "image": "i", "labels": []}', "labels"),
        (b'{"service": "greet", "image": "i", "secrets": "a"}', "secrets"),
        (b'{"service": "greet", "image": "i", "readOnlyRootFilesystem": "yes"}', "readOnlyRootFilesystem"),
        (b'{"service": "Greet", "image": "i"}', "'Greet'"),
        (b'{"service": "../greet", "image": "i"}', "../greet"),
        (b'{"service": "greet", "image": "i", "namespace": "../x"}', "../x"),
        (b'{"service": "greet", "image": "i", "namespace": "elsewhere"}', "'elsewhere'"),
        (b'{"service": "greet", "image": "i", "namespace": "kube-system"}', "'kube-system'"),
        (b'{"service": "greet", "image": "i", "secrets": ["db"]}', "'db'"),
        (b'{"service": "greet", "image": "i", "secrets": ["../key"]}', "../key"),
        (b'{"service": "greet", "image": "i", "labels": {"a": "b c"}}', "'b c'"),
        (b'{"service": "greet", "image": "i", "limits": {"memory": "lots"}}', "'lots'"),
        (b'{"service": "greet", "image": "i", "envVars": {"1A": "x"}}', "'1A'"),
        (
            b'{"service": "greet", "image": "i", "annotations": {"topic": "cron-function", "schedule": "x"}}',
            "schedule 'x' is not five fields",
        ),
    ],
)
async def test_a_bad_spec_is_refused_with_its_reason_and_stores_nothing(
    control: Control, body: bytes, words: str
) -> None:
    for method in ("POST", "PUT"):
        async with control.client.request(method, "/system/functions", data=body) as response:
            await assert_error(response, 400, "bad-input", words)
    assert control.provider.list("openfaas-fn") == []


async def test_a_body_beyond_one_mebibyte_is_too_large_announced_or_not(control: Control) -> None:
    body = json.dumps(SPEC | {"envVars": {"A": "x" * 1024 * 1024}}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for data in (body, pieces()):
        async with control.client.post("/system/functions", data=data) as response:
            await assert_error(response, 413, "too-large", "1048576")


async def test_a_compressed_body_is_limited_by_what_it_unfolds_to(control: Control) -> None:
    body = json.dumps(SPEC | {"envVars": {"A": "x" * 8 * 1024 * 1024}}).encode()
    async with control.client.post("/system/functions", data=body, compress="gzip") as response:
        await assert_error(response, 413, "too-large")


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(control: Control) -> None:
    headers = {"Content-Encoding": "gzip"}
    async with control.client.post("/system/functions", data=b"no gzip", headers=headers) as response:
        await assert_error(response, 400, "bad-input")


async def test_a_secret_that_exists_may_be_named(control: Control) -> None:
    control.secrets.create("openfaas-fn", "db", b"x")
    await control.deploy(secrets=["db"])
    assert (await describe(control))["secrets"] == ["db"]


async def test_the_list_is_empty_brackets_before_the_first_function(control: Control) -> None:
    async with control.client.get("/system/functions") as response:
        assert (response.status, await response.read()) == (200, b"[]")


async def test_the_list_is_in_order_and_carries_the_counts(control: Control) -> None:
    await control.deploy("b")
    await control.deploy("a")
    for code in (200, 200, 500):
        control.counters.start("b.openfaas-fn")
        control.counters.end("b.openfaas-fn", code, 0.01)
    async with control.client.get("/system/functions?namespace=openfaas-fn") as response:
        listed = await response.json()
    assert [(item["name"], item.get("invocationCount")) for item in listed] == [("a", None), ("b", 3.0)]


async def test_the_list_does_without_counts_that_cannot_be_had(tmp_path: Path) -> None:
    class Broken:
        async def totals(self) -> list[FunctionCounters]:
            raise Unavailable("no proxy answers")

    async with running_control(tmp_path, counters=Broken()) as control:
        await control.deploy()
        async with control.client.get("/system/functions") as response:
            assert [item["name"] for item in await response.json()] == ["greet"]


async def test_an_unknown_namespace_is_refused_by_name_everywhere(control: Control) -> None:
    client = control.client
    for request in (
        client.get("/system/functions?namespace=nope"),
        client.get("/system/function/greet?namespace=nope"),
        client.post("/system/scale-function/greet?namespace=nope", json={"replicas": 1}),
        client.delete("/system/functions?namespace=nope", json={"functionName": "greet"}),
        client.get("/system/logs?name=greet&namespace=nope"),
        client.get("/system/secrets?namespace=nope"),
    ):
        async with request as response:
            await assert_error(response, 400, "bad-input", "'nope'", "openfaas-fn")


async def test_describing_what_is_missing_is_not_found(control: Control) -> None:
    async with control.client.get("/system/function/nobody?usage=1") as response:
        await assert_error(response, 404, "not-found", "'nobody'")


async def test_the_path_may_carry_the_namespace_behind_a_dot(control: Control) -> None:
    await control.deploy()
    assert (await describe(control, "greet.openfaas-fn"))["name"] == "greet"
    assert (await describe(control, "greet", "?namespace=openfaas-fn&usage=1"))["name"] == "greet"


@pytest.mark.parametrize("name", ["..%2f..%2fkey", "%00", "a%2Fb", "GREET", "a_b", "%F0%9F%94%A5", "x" * 64])
async def test_a_name_that_cannot_be_is_refused_before_anything_is_looked_up(control: Control, name: str) -> None:
    head = f"GET /system/function/{name} HTTP/1.1\nHost: c\nConnection: close\nAuthorization: Basic {BASIC}"
    answer = await control.raw(head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"X-Stoker-Error: client; bad-input" in answer


async def test_deleting_takes_the_namespace_from_the_body_first_and_then_from_the_query(
    control: Control,
) -> None:
    for body, query in (
        ({"functionName": "greet", "namespace": "openfaas-fn"}, "?namespace=nope"),
        ({"functionName": "greet"}, "?namespace=openfaas-fn"),
        ({"functionname": "greet", "namespace": None}, ""),
    ):
        await control.deploy()
        async with control.client.delete(f"/system/functions{query}", json=body) as response:
            assert (response.status, await response.read()) == (202, b"")
    assert control.provider.list("openfaas-fn") == []


async def test_deleting_what_is_missing_or_unnamed_is_refused(control: Control) -> None:
    async with control.client.delete("/system/functions", json={"functionName": "greet"}) as response:
        await assert_error(response, 404, "not-found", "'greet'")
    for body in ({}, {"functionName": ""}, {"functionName": None}):
        async with control.client.delete("/system/functions", json=body) as response:
            await assert_error(response, 400, "bad-input", "functionName: is required")
    async with control.client.delete("/system/functions", json={"functionName": "../x"}) as response:
        await assert_error(response, 400, "bad-input")
    async with control.client.delete("/system/functions") as response:
        await assert_error(response, 400, "bad-input", "no body")


async def test_scaling_takes_the_namespace_from_the_body_first_and_then_from_the_query(
    control: Control,
) -> None:
    await control.deploy()
    for count, body, query in (
        (3, {"serviceName": "greet", "namespace": "openfaas-fn"}, "?namespace=nope"),
        (2, {"ServiceName": "greet"}, "?namespace=openfaas-fn"),
        (0, {}, ""),
    ):
        request = control.client.post(f"/system/scale-function/greet{query}", json={"replicas": count} | body)
        async with request as response:
            assert (response.status, await response.read()) == (202, b"")
        assert control.provider.get(GREET).replicas == count


async def test_scaling_what_is_missing_is_not_found(control: Control) -> None:
    async with control.client.post("/system/scale-function/nobody", json={"replicas": 1}) as response:
        await assert_error(response, 404, "not-found", "'nobody'")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b'{"replicas": null}', b'{"replicas": -1}', b'{"replicas": 1.5}',
             b'{"replicas": "2"}', b'{"replicas": true}', b'{"replicas": 100000000}', b'{"replicas": 1e400}']
)  # fmt: skip
async def test_a_bad_number_of_replicas_is_refused(control: Control, body: bytes) -> None:
    await control.deploy()
    async with control.client.post("/system/scale-function/greet", data=body) as response:
        await assert_error(response, 400, "bad-input")
    assert control.provider.get(GREET).replicas == 1


async def test_a_failed_rollout_is_described_with_its_reason(control: Control) -> None:
    control.provider.break_image("broken", "ImportError: no module named x")
    await control.deploy()
    async with control.client.put("/system/functions", json=SPEC | {"image": "broken"}) as response:
        assert response.status == 202
    condition = (await describe(control))["stoker"]
    assert (condition["state"], condition["revision"], condition["serving"]) == ("failed", 2, 1)
    assert condition["message"] == "ImportError: no module named x"


BASIC = "YWRtaW46dGhlIHBhc3N3b3Jk"
