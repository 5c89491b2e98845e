"""As much of a Kubernetes API as functions need, in memory: objects with versions, lists, watches, conflicts.

server = await ObjectServer().start()
provider = OperatorProvider(await open_api(server.kubeconfig(folder)), ...)
server.objects["/apis/apps/v1/namespaces/fn/deployments/greet"]
server.writes           # [("POST", "/apis/apps/v1/namespaces/fn/deployments"), ...]

Nothing happens by itself: there are no controllers, no pods, and nothing is collected. `answer_late` is awaited before
a write is done, and again before it is answered, so that a test can let others come between. `mutate` is what a webhook
makes of what is written; `refused` are requests that the account has no right to; one that is `overloaded` answers each
request that it may be made again at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientConnectionResetError, web

Object = dict[str, Any]
KINDS = {
    "deployments": "Deployment",
    "services": "Service",
    "functions": "Function",
    "pods": "Pod",
    "secrets": "Secret",
}


async def _at_once(method: str, path: str) -> None:
    pass


class ObjectServer:
    def __init__(self, group: str = "openfaas.com") -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.answer_late: Callable[[str, str], Awaitable[None]] = _at_once
        self.mutate: Callable[[Object], Object] = lambda kept: kept
        self.overloaded = False
        self.refused: set[tuple[str, str]] = set()
        self._group = group
        self._version = 0
        self._watchers: dict[str, dict[asyncio.Queue[bytes], str]] = {}
        """By folder; each with the labels that it is of."""
        app = web.Application()
        app.router.add_get(f"/apis/{group}/v1", self._discover)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> ObjectServer:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    def kubeconfig(self, folder: Path) -> Path:
        entry = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{self._runner.addresses[0][1]}"}}
        entry |= {"user": {"token": "t"}, "context": {"cluster": "x", "user": "x"}}
        document = {kind: [entry] for kind in ("clusters", "users", "contexts")} | {"current-context": "x"}
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [one for one in self.requests if one[0] != "GET"]

    # What others than the platform do

    def put(self, path: str, body: Object) -> Object:
        """Create or replace, whatever is there."""
        folder, _, name = path.rpartition("/")
        old = self.objects.get(path)
        made = deepcopy(body)
        metadata = made.setdefault("metadata", {})
        namespace = folder.split("/")[-2]
        metadata |= {"name": name, "namespace": namespace}
        self._version += 1
        changed = old is None or old.get("spec") != made.get("spec")
        metadata["uid"] = old["metadata"]["uid"] if old else f"uid-{self._version}"
        metadata["generation"] = (old["metadata"]["generation"] if old else 0) + changed
        metadata["creationTimestamp"] = "2026-01-31T12:00:00Z"
        metadata["resourceVersion"] = str(self._version)
        self.objects[path] = made
        self._tell(folder, old, made)
        return made

    def remove(self, path: str) -> None:
        gone = self.objects.pop(path)
        self._version += 1
        self._tell(path.rpartition("/")[0], gone, None)

    def _tell(self, folder: str, old: Object | None, new: Object | None) -> None:
        """To who watches such labels, an object that has them no more is gone: as it was, with the version of now."""
        for queue, selector in self._watchers.get(folder, {}).items():
            had, has = (one is not None and _selects(selector, one) for one in (old, new))
            if not had and not has:
                continue
            told = deepcopy(new if has else old)
            assert told is not None
            told["metadata"]["resourceVersion"] = str(self._version)
            type = "DELETED" if not has else "MODIFIED" if had else "ADDED"
            queue.put_nowait(json.dumps({"type": type, "object": told}).encode() + b"\n")

    # What is asked

    async def _discover(self, request: web.Request) -> web.Response:
        names = ("functions", "functions/status")
        self.requests.append((request.method, request.path))
        found = [{"name": name, "kind": "Function", "namespaced": True, "categories": ["stoker"]} for name in names]
        return web.json_response({"resources": found})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((request.method, path))
        if self.overloaded:
            return _refused(429, "too many requests", {"Retry-After": "0"})
        if request.query.get("watch"):
            return await self._watch(request, path)
        if request.method == "GET":
            return self._get(path, request.query.get("labelSelector", ""))
        if (request.method, path) in self.refused:
            return _refused(403, "not allowed")
        body = json.loads(await request.read() or b"{}")
        await self.answer_late(request.method, path)
        answer = self._write(request.method, path, body, bool(request.query.get("dryRun")))
        await self.answer_late(request.method, path)
        return answer

    def _get(self, path: str, selector: str) -> web.Response:
        if path in self.objects:
            return web.json_response(self.objects[path])
        if path.rpartition("/")[2] in KINDS:
            there = [one for key, one in self.objects.items() if key.rpartition("/")[0] == path]
            found = [one for one in there if _selects(selector, one)]
            return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": found})
        return _refused(404, "not found")

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        selector = request.query.get("labelSelector", "")
        self._watchers.setdefault(path, {})[queue] = selector
        seen = int(request.query["resourceVersion"])
        for key, one in self.objects.items():
            if (
                key.rpartition("/")[0] == path
                and _selects(selector, one)
                and int(one["metadata"]["resourceVersion"]) > seen
            ):
                queue.put_nowait(json.dumps({"type": "MODIFIED", "object": one}).encode() + b"\n")
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(await queue.get())
        except ClientConnectionResetError:
            return response  # the client has enough of it
        finally:
            del self._watchers[path][queue]

    def _write(self, method: str, path: str, body: Object, dry: bool) -> web.Response:
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return _refused(409, "exists already")
            made = self.mutate(body)
            return web.json_response(made if dry else self.put(path, made), status=201)
        path, is_status = path.removesuffix("/status"), path.endswith("/status")
        old = self.objects.get(path)
        if old is None:
            return _refused(404, "not found")
        if _is_stale(body, old):
            return _refused(409, "the object has been modified")
        if method == "DELETE":
            self.remove(path)
            return web.json_response({})
        new = _merged(old, {"status": body["status"]} if is_status else body) if method == "PATCH" else body
        if method == "PUT" and "status" in old:
            new = new | {"status": old["status"]}
        new = self.mutate(deepcopy(new))
        if new == old:
            return web.json_response(new)
        if dry:
            generation = old["metadata"]["generation"] + (new.get("spec") != old.get("spec"))
            return web.json_response(new | {"metadata": new["metadata"] | {"generation": generation}})
        return web.json_response(self.put(path, new))


def _selects(selector: str, one: Object) -> bool:
    """`a=b,c` are objects with the label a of the value b, and any label c."""
    labels = one["metadata"].get("labels") or {}
    pairs = [part.partition("=") for part in selector.split(",") if part]
    return all(labels.get(name) == value if equals else name in labels for name, equals, value in pairs)


def _is_stale(body: Object, old: Object) -> bool:
    wanted = body.get("metadata", {}).get("resourceVersion", old["metadata"]["resourceVersion"])
    uid = (body.get("preconditions") or {}).get("uid", old["metadata"]["uid"])
    return (wanted, uid) != (old["metadata"]["resourceVersion"], old["metadata"]["uid"])


def _merged(old: Any, change: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(change, dict):
        return deepcopy(change)
    kept = {name: value for name, value in old.items() if name not in change}
    return kept | {name: _merged(old.get(name, {}), value) for name, value in change.items() if value is not None}


def _refused(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message, "code": status}, status=status, headers=headers)
