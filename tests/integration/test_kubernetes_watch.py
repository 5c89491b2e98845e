"""A watch through what an API server may do to it: pages, versions that it has forgotten, broken lines, refusals.

The server is scripted, because a real one does these things when it wants to; what a real one does is in tests/cluster.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from stoker_gateway.providers.kubernetes.api import Api, open_api
from stoker_gateway.providers.kubernetes.objects import Named, Pod
from stoker_gateway.providers.kubernetes.watch import Watch
from stoker_sdk.errors import StokerError, Unavailable

PATH = "/api/v1/namespaces/fn/pods"
Answer = Callable[[web.Request], web.Response]


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "fn", "resourceVersion": str(version)}}


def listed(*names: str, version: int = 1, more: str = "") -> Answer:
    metadata = {"resourceVersion": str(version), "continue": more}
    return lambda request: web.json_response({"metadata": metadata, "items": [pod(name, version) for name in names]})


def events(*lines: object) -> Answer:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return lambda request: web.Response(text=text)


def refused(status: int, wait: str = "") -> Answer:
    headers = {"Retry-After": wait} if wait else {}
    return lambda request: web.json_response({"message": "no", "code": status}, status=status, headers=headers)


def added(name: str, version: int, type: str = "ADDED") -> dict[str, Any]:
    return {"type": type, "object": pod(name, version)}


class Script:
    """The answers, one after the other, and what was asked for them; after the last one requests hang."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.queries: list[dict[str, str]] = []
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        if not self.answers:
            await self.over.wait()
            return web.Response(status=503)
        return self.answers.pop(0)(request)


@asynccontextmanager
async def api_with(folder: Path, *answers: Answer) -> AsyncIterator[tuple[Api, Script]]:
    script = Script(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig = folder / "kubeconfig"
    entry = {
        "name": "x",
        "cluster": {"server": server},
        "user": {"token": "t"},
        "context": {"cluster": "x", "user": "x"},
    }
    document = {kind: [entry] for kind in ("clusters", "users", "contexts")} | {"current-context": "x"}
    kubeconfig.write_text(yaml.safe_dump(document))
    api = await open_api(kubeconfig)
    try:
        yield api, script
    finally:
        script.over.set()
        await api.close()
        await runner.cleanup()


class Seen:
    """What a watch has told, and the pods that there are by it."""

    def __init__(self, api: Api) -> None:
        self.there: set[str] = set()
        self.watch: Watch[Pod] = Watch(api, PATH, "a=b", Pod, seen=self._seen, gone=self._gone, replaced=self._replaced)

    def _seen(self, pod: Pod) -> None:
        self.there.add(pod.metadata.name)

    def _gone(self, pod: Pod) -> None:
        self.there.discard(pod.metadata.name)

    def _replaced(self, pods: list[Pod]) -> None:
        self.there = {pod.metadata.name for pod in pods}

    async def until(self, *names: str) -> None:
        task = asyncio.ensure_future(self.watch.run())
        try:
            async with asyncio.timeout(10):
                while self.there != set(names):
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()


async def test_a_list_comes_in_pages_and_is_told_as_one(tmp_path: Path) -> None:
    async with api_with(tmp_path, listed("a", more="next"), listed("b")) as (api, script):
        seen = Seen(api)
        await seen.watch.list()
        assert seen.there == {"a", "b"}
        assert [query.get("continue") for query in script.queries] == [None, "next"]


async def test_a_watch_goes_on_from_what_it_saw_last(tmp_path: Path) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    first = events(added("b", 5), added("a", 6, "DELETED"), bookmark)
    async with api_with(tmp_path, listed("a", version=4), first, events(added("c", 10))) as (api, script):
        await Seen(api).until("b", "c")
        assert [query.get("resourceVersion") for query in script.queries[:3]] == [None, "4", "9"]


@pytest.mark.parametrize(
    "broken",
    [
        refused(410),
        events({"type": "ERROR", "object": {"code": 410, "message": "too old"}}),
        events("{"),
        events('{"type": "ADDED", "object": {"metadata": 5}}'),
        events("\ud7ff"),
    ],
    ids=["gone", "gone in the stream", "half a line", "no pod", "no JSON"],
)
async def test_after_what_cannot_be_gone_on_from_the_list_is_asked_for_anew(tmp_path: Path, broken: Answer) -> None:
    async with api_with(tmp_path, listed("a"), broken, listed("a", "b", version=8)) as (api, script):
        await Seen(api).until("a", "b")
        assert "watch" not in script.queries[2]


@pytest.mark.parametrize("status", [429, 500, 503, 403])
async def test_a_refusal_is_waited_out_and_forgets_nothing(tmp_path: Path, status: int) -> None:
    answers = (listed("a", version=4), refused(status), refused(status), events(added("b", 5)))
    async with api_with(tmp_path, *answers) as (api, script):
        await Seen(api).until("a", "b")
        assert [query.get("resourceVersion") for query in script.queries[1:4]] == ["4", "4", "4"]


@pytest.mark.parametrize("wait", ["0", "1", "", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"])
async def test_a_write_waits_until_an_overloaded_api_takes_it(tmp_path: Path, wait: str) -> None:
    done = listed()
    async with api_with(tmp_path, refused(429, wait), refused(429, wait), done) as (api, script):
        begun = time.monotonic()
        await api.create("/x", {"metadata": {"name": "x"}}, Named, "deployment 'greet'")
        assert len(script.queries) == 3 and time.monotonic() - begun >= (2 if wait == "1" else 0)


async def test_an_api_that_asks_for_more_patience_than_a_deploy_has_is_told_at_once(tmp_path: Path) -> None:
    async with api_with(tmp_path, refused(429, "60")) as (api, _):
        with pytest.raises(Unavailable, match=r"deployment 'greet'.*overloaded \(429\): try again later"):
            await api.create("/x", {}, Pod, "deployment 'greet'")


@pytest.mark.parametrize("status", [500, 503])
async def test_a_write_that_the_api_cannot_take_now_is_unavailable(tmp_path: Path, status: int) -> None:
    async with api_with(tmp_path, refused(status)) as (api, _):
        with pytest.raises(Unavailable, match=r"deployment 'greet'.*try again later"):
            await api.create("/x", {}, Pod, "deployment 'greet'")


async def test_an_answer_that_is_no_object_is_an_error_of_ours(tmp_path: Path) -> None:
    async with api_with(tmp_path, lambda request: web.Response(text="<html>")) as (api, _):
        with pytest.raises(StokerError, match="cannot be read"):
            await api.get("/x", Pod, "pod 'x'")


@pytest.mark.parametrize("text", ["", "[]", "clusters: 5", "\x00", "{current-context: x}"])
async def test_a_kubeconfig_that_gives_no_access_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(StokerError, match=r"kubeconfig.*gives no access"):
        await open_api(tmp_path / "kubeconfig")
