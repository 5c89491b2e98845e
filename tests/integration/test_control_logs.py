"""`/system/logs` over a real socket: which lines, in what form, and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from control_harness import GREET, Control, assert_error, running_control, until

from stoker_gateway.providers.base import LogLine, LogQuery
from stoker_gateway.providers.memory import MemoryProvider
from stoker_sdk.names import FunctionKey


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        await running.deploy()
        yield running


async def read(control: Control, query: str) -> list[dict[str, Any]]:
    async with control.client.get(f"/system/logs?{query}") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def test_a_line_has_every_field_of_the_contract(control: Control) -> None:
    await control.provider.print(GREET, "héllo\n", instance="greet-1", call="c1", at="2026-01-31T12:00:00.5Z")
    assert await read(control, "name=greet") == [
        {
            "name": "greet",
            "namespace": "openfaas-fn",
            "instance": "greet-1",
            "timestamp": "2026-01-31T12:00:00.5Z",
            "text": "héllo\n",
            "call": "c1",
        }
    ]


async def test_lines_are_chosen_by_tail_since_and_instance(control: Control) -> None:
    for second in range(4):
        at = f"2026-01-31T12:00:0{second}Z"
        await control.provider.print(GREET, str(second), instance=f"i{second % 2}", at=at)

    async def texts(query: str) -> str:
        return "".join(line["text"] for line in await read(control, f"name=greet&{query}"))

    assert await texts("") == "0123"
    assert await texts("tail=-1") == "0123"
    assert await texts("tail=2") == "23"
    assert await texts("tail=0") == ""
    assert await texts("tail=9&tail=1") == "3"
    assert await texts("instance=i1") == "13"
    assert await texts("instance=i0&tail=1") == "2"
    assert await texts("since=2026-01-31T12:00:02Z") == "23"
    assert await texts("since=2026-01-31T14:00:03+02:00") == "3"
    assert await texts("follow=perhaps") == "0123"


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("tail=many", "tail"),
        ("tail=1.5", "tail"),
        ("tail=99999999999", "tail"),
        ("tail=%D9%A3", "tail"),
        ("since=yesterday", "since"),
        ("since=2026-01-31", "since"),
        ("since=2026-01-31T12:00:00", "since"),
    ],
)
async def test_an_unreadable_query_is_refused_and_says_what_to_write(control: Control, query: str, word: str) -> None:
    async with control.client.get(f"/system/logs?name=greet&{query}") as response:
        await assert_error(response, 400, "bad-input", word, "write")


async def test_an_unknown_or_unnamed_function_is_refused_even_when_following(control: Control) -> None:
    async with control.client.get("/system/logs?name=nobody&follow=1") as response:
        await assert_error(response, 404, "not-found", "'nobody'")
    for query in ("", "name=", "name=../key", "name=Greet"):
        async with control.client.get(f"/system/logs?{query}") as response:
            await assert_error(response, 400, "bad-input")


async def test_the_head_comes_before_the_first_line_and_lines_as_they_are_printed(control: Control) -> None:
    async with control.client.get("/system/logs?name=greet&follow=true&tail=-1") as response:
        assert response.status == 200
        for text in ("first", "second"):
            await control.provider.print(GREET, text)
            line = json.loads(await asyncio.wait_for(response.content.readline(), 5))
            assert line["text"] == text


async def test_following_ends_when_the_function_is_removed(control: Control) -> None:
    async with control.client.get("/system/logs?name=greet&follow=1") as response:
        await control.provider.remove(GREET)
        assert await asyncio.wait_for(response.read(), 5) == b""


class _Watched(MemoryProvider):
    """Tells whether somebody is following."""

    def __init__(self) -> None:
        super().__init__()
        self.followers = 0

    async def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        self.followers += 1
        try:
            async for line in super().logs(key, query):
                yield line
                if line.text == "break":
                    raise RuntimeError("the log broke")
        finally:
            self.followers -= 1


async def test_a_silent_follower_that_leaves_is_let_go(tmp_path: Path) -> None:
    provider = _Watched()
    async with running_control(tmp_path, provider=provider) as control:
        await control.deploy()
        response = await control.client.get("/system/logs?name=greet&follow=1")
        await until(lambda: provider.followers == 1)
        response.close()
        await until(lambda: provider.followers == 0)


async def test_a_stop_of_the_platform_ends_followers_at_once(tmp_path: Path) -> None:
    provider = _Watched()
    async with running_control(tmp_path, provider=provider) as control:
        await control.deploy()
        response = await control.client.get("/system/logs?name=greet&follow=1")
        await until(lambda: provider.followers == 1)
    assert provider.followers == 0
    response.close()


async def test_a_log_that_fails_half_way_is_seen_as_broken(tmp_path: Path) -> None:
    provider = _Watched()
    async with running_control(tmp_path, provider=provider) as control:
        await control.deploy()
        await provider.print(GREET, "break")
        async with control.client.get("/system/logs?name=greet") as response:
            assert response.status == 200
            with pytest.raises(ClientPayloadError):
                await response.read()
        async with control.client.get("/healthz") as response:
            assert response.status == web.HTTPOk.status_code
