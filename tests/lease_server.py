"""As much of a Kubernetes API as a Lease needs, in memory, with a door for each client that can be shut.

server = await LeaseServer().start()
api = await open_api(server.door("a", folder))
server.shut("a")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from aiohttp import web


class LeaseServer:
    """`leases` are the objects by path, as they are; `lose_answers` lets writes happen and their answers fail."""

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.lose_answers = 0
        self.writes = 0
        self._version = 0
        self._shut: set[str] = set()
        app = web.Application()
        app.router.add_route("*", "/{door}/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)

    async def start(self) -> LeaseServer:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    def door(self, name: str, folder: Path) -> Path:
        """A kubeconfig by which the server is reached, until this door is shut."""
        server = f"http://127.0.0.1:{self._runner.addresses[0][1]}/{name}"
        entry = {"name": "x", "cluster": {"server": server}, "user": {"token": "t"}}
        entry["context"] = {"cluster": "x", "user": "x"}
        document = {kind: [entry] for kind in ("clusters", "users", "contexts")} | {"current-context": "x"}
        path = folder / f"{name}-kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def shut(self, name: str) -> None:
        self._shut.add(name)

    def open(self, name: str) -> None:
        self._shut.discard(name)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.match_info["door"] in self._shut:
            return _refused(503)
        path = request.match_info["path"]
        if request.method == "GET":
            return web.json_response(self.leases[path]) if path in self.leases else _refused(404)
        body = await request.json()
        if request.method == "POST":
            path = f"{path}/{body['metadata']['name']}"
        answer = self._write(path, body, create=request.method == "POST")
        if self.lose_answers:
            self.lose_answers -= 1
            return _refused(500)
        return answer

    def _write(self, path: str, body: dict[str, Any], *, create: bool) -> web.Response:
        known = self.leases.get(path)
        if create and known is not None:
            return _refused(409)
        if not create and known is None:
            return _refused(404)
        if known and known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            return _refused(409)
        self.writes += 1
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.leases[path] = body
        return web.json_response(body)


def _refused(status: int) -> web.Response:
    return web.json_response({"message": "no", "code": status}, status=status)
