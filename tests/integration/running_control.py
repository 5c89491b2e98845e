"""A control API over an in-memory provider, on a port of its own, for tests of its clients.

It runs in a thread, because the clients under test block. Beside the API it answers `/function/NAME` as a
proxy would, so that `invoke` has somebody to talk to.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stoker_gateway.control.app import make_app, make_runner
from stoker_gateway.control.config import ControlConfig
from stoker_gateway.counters import MemoryCounters
from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.memory import MemoryProvider
from stoker_gateway.secrets import FileSecrets, SecretStore
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.messages import CallsChanged, CallStatus

PASSWORD = "s3cret"
REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("wire", "sdk", "watchdog", "gateway", "builder", "cli")

BUILDER = """
import hashlib, json, sys, tarfile
tar = tarfile.open(fileobj=sys.stdin.buffer, mode="r|*")
settings, digest = {}, hashlib.sha256()
for member in tar:
    content = tar.extractfile(member).read()
    digest.update(member.name.encode() + content)
    settings = settings or json.loads(content)
def say(line): print(json.dumps(line), flush=True)
say({"log": "installing nothing"})
if "broken" in settings["name"]:
    say({"log": "1 failed"})
    say({"error": "the tests of 'broken' failed", "code": "failed-tests"})
    sys.exit(1)
say({"image": f"stoker.local/{settings['name']}@sha256:{digest.hexdigest()}", "cached": False})
"""
"""A builder that keeps the interface of the real one and takes no time: name by settings, digest by content.
"""


@dataclass
class RunningControl:
    """The server's address and what is behind it; `run` steps into its event loop."""

    url: str
    provider: MemoryProvider
    counters: MemoryCounters
    loop: asyncio.AbstractEventLoop
    invocations: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    calls: dict[str, list[CallStatus]] = field(default_factory=dict)
    """What `/system/calls` tells, by id: each time it is asked for one, the next state; the last one stays."""

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(10)


@contextmanager
def running_control(folder: Path, *, canned_calls: bool = False) -> Iterator[RunningControl]:
    """With `canned_calls` the routes of async calls are ours, which need no broker."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="control")
    thread.start()
    started: RunningControl | None = None
    try:
        started, runner = asyncio.run_coroutine_threadsafe(_start(folder, loop, canned_calls), loop).result(10)
        yield started
    finally:
        if started is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(15)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _start(
    folder: Path, loop: asyncio.AbstractEventLoop, canned_calls: bool
) -> tuple[RunningControl, web.AppRunner]:
    provider, counters = MemoryProvider(), MemoryCounters()
    control = RunningControl("", provider, counters, loop)
    config = ControlConfig(BasicAuth("admin", PASSWORD), build_command=(sys.executable, "-c", BUILDER))
    namespaces = NamespaceStore(folder / "namespaces", folder / "set-aside")
    secrets = FileSecrets(SecretStore(folder / "secrets", folder / "key"))
    app = make_app(config, provider, secrets, namespaces, counters)
    app.middlewares.insert(0, _proxy(control, canned_calls))
    runner = make_runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    control.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return control, runner


def _proxy(control: RunningControl, canned_calls: bool) -> Middleware:
    @web.middleware
    async def proxy(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_call = request.path.startswith(("/function/", "/async-function/"))
        if canned_calls and request.path.startswith("/system/calls"):
            return await _stored_call(control, request)
        return await _call(control, request) if is_call else await handler(request)

    return proxy


async def _call(control: RunningControl, request: web.Request) -> web.Response:
    body = await request.content.read()
    control.invocations.append((request.method, request.path_qs, dict(request.headers), body))
    if request.path.startswith("/async-function/"):
        return web.Response(status=202, headers={"X-Call-Id": "call-1"})
    if request.path.startswith("/function/fails"):
        error = {"X-Stoker-Error": "function handler-failed: ValueError, see the log"}
        return web.Response(status=500, text="no luck", headers=error)
    return web.Response(body=body[::-1])


async def _stored_call(control: RunningControl, request: web.Request) -> web.Response:
    """The routes of async calls as the platform has them, with canned calls instead of a broker."""
    id, _, part = request.path.removeprefix("/system/calls").strip("/").partition("/")
    control.invocations.append((request.method, request.path_qs, dict(request.headers), await request.read()))
    if not id:
        return _purged(control, request.query) if request.method == "DELETE" else _page(control, request.query)
    if id == "replay":
        step, after = _step(control, request.query, ("dead",))
        return _json(CallsChanged(len(step), after, replayed={status.id: f"{status.id}-again" for status in step}))
    states = control.calls.get(id)
    if not states:
        return web.Response(status=404, text=f"no such call: {id!r}; it was never accepted")
    if part == "result":
        if not states[0].result_until:
            return web.Response(status=404, text=f"the answer of call {id} is not kept")
        headers = {"X-Stoker-Status": str(states[0].status), "X-Own": "a", "X-Stoker-Truncated": "true"}
        return web.Response(body=b"\0\xff\n", headers=headers)
    if request.method == "GET":
        return _json(states.pop(0) if len(states) > 1 else states[0])
    if request.method == "DELETE":
        if states[-1].state in ("done", "dead", "cancelled"):
            return web.Response(status=409, text=f"call {id} has ended already: it is {states[-1].state}")
        control.calls[id] = [msgspec.structs.replace(states[-1], state="cancelled")]
        return web.Response(status=202)
    if states[-1].state != "dead":
        return web.Response(status=409, text=f"call {id} is {states[-1].state}: only dead calls are replayed")
    return _json(msgspec.structs.replace(states[-1], id=f"{id}-again", state="queued"), 202)


def _page(control: RunningControl, query: Mapping[str, str]) -> web.Response:
    wanted = {name: query[name] for name in ("function", "namespace", "state") if name in query}
    found = [
        status
        for (status, *_) in control.calls.values()
        if all(getattr(status, name) == value for name, value in wanted.items())
    ]
    after = query.get("after", "")
    return _json([status for status in found if status.cursor > after][: min(3, int(query["limit"]))])


def _purged(control: RunningControl, query: Mapping[str, str]) -> web.Response:
    states = ("queued", "retrying") if query["state"] == "queued" else (query["state"],)
    step, after = _step(control, query, states)
    for status in step:
        if status.state == "dead":
            del control.calls[status.id]
        else:
            control.calls[status.id] = [msgspec.structs.replace(status, state="cancelled")]
    return _json(CallsChanged(len(step), after))


def _step(control: RunningControl, query: Mapping[str, str], states: tuple[str, ...]) -> tuple[list[CallStatus], str]:
    """The next call, and where the step after it goes on."""
    found = [
        status
        for (status, *_) in control.calls.values()
        if (status.function, status.state in states) == (query["function"], True)
        and status.cursor > query.get("after", "")
    ]
    return found[:1], found[0].cursor if found else ""


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str
    raw: bytes


@dataclass(frozen=True)
class Shell:
    """Runs `stoker` as a process, in a folder and a home of its own."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "stoker_cli", *arguments],
            input=stdin or b"",
            capture_output=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode(), done.stdout)

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def shell(folder: Path, **environment: str) -> Shell:
    """A shell whose user has no logins and whose machine has no platform, unless `environment` says
    otherwise.
    """
    work = folder / "work"
    work.mkdir()
    base = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "STOKER_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": os.pathsep.join(str(REPOSITORY / package) for package in PACKAGES),
    }
    return Shell(work, {**base, **environment})
