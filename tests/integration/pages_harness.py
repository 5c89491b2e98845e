"""The pages on a port of their own, before a real control API and a pipeline with canned runs, and a browser's manners.

async with running_pages(tmp_path) as pages:
    await pages.control.deploy("greet")
    browser = pages.browser()
    await browser.sign_in()
    text = await browser.text("/ui/")
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientResponse, ClientSession, CookieJar, web
from control_harness import PASSWORD, Control, running_control
from github_oauth import CLIENT_ID, CLIENT_SECRET, GitHubOAuth

from stoker_gateway.pages.app import make_app
from stoker_gateway.pages.backend import Backend
from stoker_gateway.pages.github import GitHub
from stoker_gateway.pages.keys import PagesConfig
from stoker_gateway.pages.sessions import Sessions
from stoker_sdk.activity import Activity
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.origin import check_origin
from stoker_sdk.runs import FunctionResult, Push, Run, RunLine

SHA = "0123456789abcdef0123456789abcdef01234567"
_TOKEN = re.compile(r'name="token" value="([^"]*)"')


@dataclass
class Pipeline:
    """What the git pipeline would answer."""

    runs: dict[int, Run] = field(default_factory=dict)
    lines: dict[int, list[RunLine]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, owner: str, repository: str, *, state: str = "succeeded", **changes: Any) -> Run:
        id = len(self.runs) + 1
        push = Push("stoker", owner, repository, "main", SHA, subject=changes.pop("subject", "A change"))
        now = "2026-01-31T12:00:00Z"
        functions = [FunctionResult("greet", check_origin(owner, repository, "greet").name, "deployed")]
        run = Run(id, push, state, created_at=now, started_at=now, ended_at=now, functions=functions)
        self.runs[id] = msgspec.structs.replace(run, **changes)
        self.lines.setdefault(id, [])
        return self.runs[id]

    @asynccontextmanager
    async def running(self, socket: Path) -> AsyncIterator[None]:
        app = web.Application()
        app.add_routes(
            [
                web.get("/system/runs", self._list),
                web.get("/system/runs/{id}", self._show),
                web.get("/system/runs/{id}/log", self._log),
                web.post("/system/runs/{id}/retry", self._show),
                web.delete("/system/runs/{id}", self._show),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        wanted = (request.query["owner"], request.query["repository"])
        found = [
            run
            for _, run in sorted(self.runs.items(), reverse=True)
            if wanted[0] in ("", run.push.owner.lower()) and wanted[1] in ("", run.push.repository.lower())
        ]
        return web.Response(body=msgspec.json.encode(found))

    async def _show(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        run = self.runs.get(int(request.match_info["id"]))
        return web.Response(body=msgspec.json.encode(run)) if run else web.Response(status=404, text="no such run\n")

    async def _log(self, request: web.Request) -> web.Response:
        lines = self.lines[int(request.match_info["id"])]
        return web.Response(body=b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


class Browser:
    """Keeps cookies, and follows no redirect by itself."""

    def __init__(self, url: str, client: ClientSession) -> None:
        self.url = url
        self.client = client

    async def get(self, path: str, **headers: str) -> ClientResponse:
        return await self.client.get(self.url + path, headers=_fields(headers), allow_redirects=False)

    async def post(self, path: str, data: dict[str, str], **headers: str) -> ClientResponse:
        fields = {"Origin": self.url} | _fields(headers)
        return await self.client.post(self.url + path, data=data, headers=fields, allow_redirects=False)

    async def text(self, path: str, status: int = 200) -> str:
        async with await self.get(path) as response:
            text = await response.text()
            assert response.status == status, text
            return text

    async def token(self, path: str = "/ui/") -> str:
        """The token of the forms on a page."""
        match = _TOKEN.search(await self.text(path))
        assert match is not None
        return match[1]

    async def sign_in(self, password: str = PASSWORD, next: str = "") -> ClientResponse:
        form = {"token": await self.token("/ui/sign-in"), "user": "admin", "password": password, "next": next}
        return await self.post("/ui/sign-in", form)

    async def sign_in_with_github(self, next: str = "") -> ClientResponse:
        return await self.get(await self.go_to_github(next))

    async def go_to_github(self, next: str = "") -> str:
        """The path on which somebody comes back from there."""
        there = await self.get(f"/ui/github?next={next}")
        back = await self.client.get(there.headers["Location"], allow_redirects=False)
        location = back.headers["Location"]
        assert location.startswith(self.url)
        return location.removeprefix(self.url)


@dataclass
class Pages:
    url: str
    control: Control
    pipeline: Pipeline
    github: GitHubOAuth
    clients: list[ClientSession] = field(default_factory=list)

    def browser(self) -> Browser:
        client = ClientSession(cookie_jar=CookieJar(unsafe=True))
        self.clients.append(client)
        return Browser(self.url, client)

    async def admin(self) -> Browser:
        browser = self.browser()
        assert (await browser.sign_in()).status == 303
        return browser

    async def owner(self, login: str, *organisations: str) -> Browser:
        self.github.login, self.github.organisations = login, list(organisations)
        browser = self.browser()
        assert (await browser.sign_in_with_github()).status == 303
        return browser

    async def deploy_of(self, owner: str, repository: str, function: str, run: int = 1, **fields: Any) -> str:
        """Deploy as the pipeline does; returns the platform's name."""
        origin = check_origin(owner, repository, function)
        marks = {"stoker.dev/sha": SHA, "stoker.dev/run": str(run), "stoker.dev/push": "stoker main"}
        await self.control.deploy(origin.name, annotations=origin.annotations | marks, **fields)
        return origin.name


@asynccontextmanager
async def running_pages(
    folder: Path, *, has_git: bool = True, host: str = "", gateway: str = "", public_badges: bool = False
) -> AsyncIterator[Pages]:
    pipeline = Pipeline()
    async with (
        running_control(folder) as control,
        pipeline.running(folder / "pipeline.sock"),
        GitHubOAuth("nobody").running() as github,
    ):
        backend = Backend(f"unix:{control.socket}", f"unix:{folder / 'pipeline.sock'}", PASSWORD, lambda: has_git)
        config = PagesConfig(BasicAuth("admin", PASSWORD), host, gateway, public_badges)
        sessions = Sessions(PASSWORD, folder / "ended-sessions.json")
        oauth = GitHub(CLIENT_ID, CLIENT_SECRET, github.url)
        app = make_app(config, backend, sessions, Activity(), lambda: oauth)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pages = Pages(f"http://127.0.0.1:{runner.addresses[0][1]}", control, pipeline, github)
        try:
            yield pages
        finally:
            for client in pages.clients:
                await client.close()
            await runner.cleanup()
            await backend.close()


def _fields(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in headers.items()}
