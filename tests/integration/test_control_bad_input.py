"""Every route that takes a body or a name, and what it does with a bad one: a clear 4xx, and nothing is written.

The routes are those of the API's own description, so that a new one is tested by being there.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_harness import Control, running_control

from stoker_gateway.control.openapi_operations import OPERATIONS, Operation

# Without a broker, as here, there are no calls: e2e/test_async_calls.py sends bad replays to a platform that has one.
WITH_BODY = [one for one in OPERATIONS if one.body and not isinstance(one.body, str) and "/calls/" not in one.path]
WITH_NAME = [one for one in OPERATIONS if "{name}" in one.path]

BODIES = {
    "nothing": b"",
    "blanks": b" \n\t",
    "an end too early": b'{"name": "gre',
    "no JSON": b"name=greet",
    "two values": b"{} {}",
    "a list": b"[]",
    "a text": b'"greet"',
    "a number": b"5",
    "too deep": b"[" * 100_000,
    "too deep below a key": b'{"labels": ' + b'{"a":' * 50_000,
    "no UTF-8": b'{"name": "\xff\xfe", "service": "\xff", "functionName": "\xff", "status": "\xff"}',
    "half a surrogate pair": rb'{"name": "\ud800", "service": "\ud800", "functionName": "\ud800", "status": "\ud800"}',
    "numbers for texts": b'{"name": 1, "service": 1, "functionName": 1, "serviceName": 1, "status": 1}',
    "texts for numbers and maps": b'{"replicas": "1", "labels": "a", "image": [], "alerts": "a", "name": {}}',
    "infinite": b'{"replicas": Infinity, "name": NaN, "alerts": NaN, "service": NaN, "functionName": NaN}',
    "huge numbers": b'{"replicas": 1e999, "name": 9e999, "alerts": 9e999, "service": 9e999, "functionName": 9e99}',
    "a NUL": b'{"name": "a\x00b", "service": "a\x00b", "functionName": "a\x00b", "status": "a\x00b"}',
}
NAMES = ["..%2F..%2Fkey", "%2e%2e%2fkey", "..%5Ckey", "%00", "a%00b", "a%2Fb", "GREET", "a_b", "%F0%9F%94%A5", "%FF",
         "x" * 64, "x" * 10_000, "-a", "a-", "%20", "a%0Ab", "%25", "nobody"]  # fmt: skip


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        await running.deploy()
        running.secrets.create("openfaas-fn", "db", b"old")
        yield running


def contents(folder: Path) -> dict[str, str]:
    """Every file below the folder, by its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def ask(control: Control, operation: Operation, name: str, body: bytes | None) -> bytes:
    """The raw answer, so that no client tidies the path."""
    content = body or b""
    head = (
        f"{operation.method} {operation.path.format(name=name, owner='me')} HTTP/1.1\nHost: c\nConnection: close\n"
        f"Authorization: Basic YWRtaW46dGhlIHBhc3N3b3Jk\nContent-Length: {len(content)}"
    )
    return await control.raw(head, content)


def assert_clear_refusal(answer: bytes, what: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head[9:12] in (b"400", b"404", b"413", b"422"), (what, answer[:500])
    assert b"X-Stoker-Error: client; " in head
    assert body.endswith(b"\n") and len(body) < 1000 and b"Traceback" not in body


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda one: one.id)
async def test_a_bad_body_is_refused_with_its_reason_and_nothing_is_written(
    control: Control, tmp_path: Path, operation: Operation
) -> None:
    before, functions = contents(tmp_path), control.provider.list("openfaas-fn")
    for what, body in BODIES.items():
        assert_clear_refusal(await ask(control, operation, "greet", body), what)
    assert (contents(tmp_path), control.provider.list("openfaas-fn")) == (before, functions)


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda one: one.id)
async def test_an_oversized_body_is_refused_and_nothing_is_written(
    control: Control, tmp_path: Path, operation: Operation
) -> None:
    before = contents(tmp_path)
    name = "openfaas-fn" if "/namespace/" in operation.path else "greet"
    answer = await ask(control, operation, name, b'{"name": "' + b"x" * 5 * 1024 * 1024 + b'"}')
    assert answer.startswith(b"HTTP/1.1 413 ") and b"X-Stoker-Error: client; too-large" in answer
    assert contents(tmp_path) == before


@pytest.mark.parametrize("operation", WITH_NAME, ids=lambda one: one.id)
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
async def test_a_name_that_cannot_be_or_is_not_there_is_refused(
    control: Control, tmp_path: Path, operation: Operation, name: str
) -> None:
    before = contents(tmp_path)
    body = b'{"name": "dev", "labels": {"openfaas": "1"}, "replicas": 1}' if operation.body else None
    assert_clear_refusal(await ask(control, operation, name, body), name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "namespace", ["..", "../openfaas-fn", "openfaas-fn/..", "a.b", "OPENFAAS-FN", "x" * 64, "a\0", "é"]
)
async def test_a_namespace_that_cannot_be_is_refused_in_every_body_and_query(
    control: Control, tmp_path: Path, namespace: str
) -> None:
    before = contents(tmp_path)
    for method, path, body in (
        ("POST", "/system/functions", {"service": "other", "image": "i"}),
        ("PUT", "/system/functions", {"service": "greet", "image": "i"}),
        ("DELETE", "/system/functions", {"functionName": "greet"}),
        ("POST", "/system/scale-function/greet", {"replicas": 3}),
        ("POST", "/system/secrets", {"name": "new", "value": "x"}),
        ("PUT", "/system/secrets", {"name": "db", "value": "x"}),
        ("DELETE", "/system/secrets", {"name": "db"}),
    ):
        for json, query in (({**body, "namespace": namespace}, {}), (body, {"namespace": namespace})):
            async with control.client.request(method, path, json=json, params=query) as response:
                assert response.status == 400, (method, path, await response.text())
                assert response.headers["X-Stoker-Error"] == "client; bad-input"
    for path in ("/system/functions", "/system/function/greet", "/system/secrets", "/system/logs"):
        async with control.client.get(path, params={"namespace": namespace, "name": "greet"}) as response:
            assert response.status == 400
    assert contents(tmp_path) == before
    assert [status.replicas for status in control.provider.list("openfaas-fn")] == [1]
