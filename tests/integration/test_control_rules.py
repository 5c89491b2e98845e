"""What holds for every route: credentials, clean paths, methods, errors; and the routes that never change."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
from control_harness import PASSWORD, Control, assert_error, credentials, open_client, running_control

from stoker_gateway.providers.memory import MemoryProvider

PROTECTED = ["/system/functions", "/system/function/x", "/system/info", "/system/logs", "/system/secrets",
             "/system/namespaces", "/system/telemetry", "/system/", "/ui/", "/ui/index.html"]  # fmt: skip


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


def basic(text: str) -> str:
    return credentials(*text.split(":", 1)) if ":" in text else "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer ", "Bearer", "Bearer " + PASSWORD, "Basic", "Basic ", "Basic !!!", "Basic é",
     basic("admin"), basic("admin:"), basic(":" + PASSWORD), basic("root:" + PASSWORD),
     basic("admin:" + PASSWORD + " "), basic("admin:wrong"), basic("admin:" + PASSWORD)[:-2]],
)  # fmt: skip
async def test_every_system_route_asks_for_credentials(control: Control, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with open_client(control.socket) as client:
        for path in PROTECTED:
            async with client.get(path, headers=headers) as response:
                await assert_error(response, 401, "unauthorized")
                assert await response.text() == "invalid credentials\n"
                assert response.headers["WWW-Authenticate"] == 'Basic realm="Restricted"'


async def test_an_escaped_path_gets_around_no_credentials(control: Control) -> None:
    for path in ("/%73ystem/functions", "/system%2ffunctions", "/%75i/", "/system/%66unctions"):
        answer = await control.raw(f"GET {path} HTTP/1.1\nHost: c\nConnection: close")
        assert answer.split()[1] in (b"401", b"404"), path


async def test_the_scheme_is_read_in_any_case(control: Control) -> None:
    async with open_client(control.socket) as client:
        header = {"Authorization": basic("admin:" + PASSWORD).replace("Basic", "bAsIc")}
        async with client.get("/system/namespaces", headers=header) as response:
            assert response.status == 200


async def test_health_and_the_front_page_are_open(control: Control) -> None:
    async with open_client(control.socket) as client:
        async with client.get("/healthz") as response:
            assert (response.status, await response.text()) == (200, "OK")
        async with client.head("/healthz") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get("/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (307, "/ui/")


async def test_control_itself_has_no_pages(control: Control) -> None:
    for path in ("/ui/", "/ui/index.html", "/ui/a/b"):
        async with control.client.get(path) as response:
            await assert_error(response, 404, "not-found", "--no-pages")


async def test_an_unknown_path_is_not_found_and_named(control: Control) -> None:
    for path in ("/nowhere", "/system/nowhere", "/system/telemetry", "/ui", "/metrics", "/system/function/"):
        async with control.client.get(path) as response:
            await assert_error(response, 404, "not-found", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/system/functions", "DELETE, GET, HEAD, POST, PUT"),
        ("POST", "/system/function/greet", "GET, HEAD"),
        ("GET", "/system/scale-function/greet", "POST"),
        ("POST", "/system/logs", "GET"),
        ("POST", "/system/namespaces", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/system/builds", "POST"),
        ("PURGE", "/system/info", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_refused_with_the_right_ones(
    control: Control, method: str, path: str, allowed: str
) -> None:
    async with control.client.request(method, path) as response:
        await assert_error(response, 405, "method-not-allowed", allowed)
        assert response.headers["Allow"] == allowed


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("//system//functions", "/system/functions"),
        ("/system/../healthz", "/healthz"),
        ("/system/./functions?namespace=a//b", "/system/functions?namespace=a//b"),
        ("/system/%2e%2E/healthz?", "/healthz?"),
        ("//evil.example/%5c", "/evil.example/%5c"),
        ("//\\evil.example", "/%5Cevil.example"),
        ("/../..", "/"),
        ("/ui//", "/ui/"),
    ],
)
async def test_an_unclean_path_is_sent_to_the_clean_one_with_its_query(
    control: Control, path: str, cleaned: str
) -> None:
    answer = await control.raw(f"GET {path} HTTP/1.1\nHost: c\nConnection: close")
    assert answer.startswith(b"HTTP/1.1 301 ")
    assert f"\r\nLocation: {cleaned}\r\n".encode() in answer


async def test_info_has_no_null_in_it(control: Control) -> None:
    async with control.client.get("/system/info") as response:
        info = await response.json()
    assert info["provider"]["provider"] and info["provider"]["orchestration"] == "memory"
    assert info["provider"]["version"]["release"] and "sha" in info["provider"]["version"]
    assert info["version"]["release"] and info["arch"]


async def test_the_default_namespace_is_listed(control: Control) -> None:
    async with control.client.get("/system/namespaces") as response:
        assert await response.json() == ["openfaas-fn"]


async def test_no_answer_names_what_the_server_is_built_with(control: Control) -> None:
    for path in ("/healthz", "/system/functions", "/nowhere"):
        async with control.client.get(path) as response:
            assert "Server" not in response.headers


async def test_a_long_head_passes_as_it_does_at_the_proxies(control: Control) -> None:
    headers = {"X-Long": "x" * 60_000}
    async with control.client.get("/system/namespaces?" + "y" * 15_000, headers=headers) as response:
        assert response.status == 200


class _Buggy(MemoryProvider):
    def list(self, namespace: str) -> NoReturn:
        raise RuntimeError("a bug with a secret in it")


async def test_a_bug_is_one_line_with_a_call_id_and_its_traceback_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_control(tmp_path, provider=_Buggy()) as control:
        headers = {"X-Call-Id": "call-17"}
        async with control.client.get("/system/functions", headers=headers) as response:
            await assert_error(response, 500, "internal", "call-17")
            assert response.headers["X-Call-Id"] == "call-17"
            assert "bug" not in await response.text()
        async with control.client.get("/system/functions") as response:
            assert len(response.headers["X-Call-Id"]) == 36
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "call-17" in record.getMessage() and record.exc_info is not None


async def test_two_clients_with_the_right_password_are_both_served(control: Control) -> None:
    async with open_client(control.socket, {"Authorization": credentials("admin", PASSWORD)}) as other:
        for client in (other, control.client):
            async with client.get("/system/functions") as response:
                assert response.status == 200
