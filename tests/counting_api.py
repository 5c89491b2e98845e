"""A reverse proxy before a real Kubernetes API, for tests that count what is asked of it, or let it refuse.

with CountingApi(cluster.kubeconfig, folder) as api:
    platform = Platform(flags=("--provider", "kubernetes"), KUBECONFIG=str(api.kubeconfig))
    api.writes()                # [("POST", "/apis/apps/v1/namespaces/x/deployments"), ...] since the last `forget`
    api.refuse("POST", "/deployments", 429)

`kubectl proxy` has the credentials and speaks TLS; what comes between is seen here.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
from pathlib import Path
from types import TracebackType

import yaml
from aiohttp import ClientConnectionResetError, ClientError, ClientPayloadError, ClientSession, ClientTimeout, web

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "content-encoding", "accept-encoding"}


class CountingApi:
    """`seen` are all requests, each as method and path with its query, but for those by which a leader holds on."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._kubectl = ["kubectl", "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
        self.kubeconfig = folder / "counted-kubeconfig"
        self.seen: list[tuple[str, str]] = []
        self._refusals: list[tuple[str, str, int]] = []
        self._ready = threading.Event()

    def writes(self) -> list[tuple[str, str]]:
        return [one for one in self.seen if one[0] != "GET"]

    def watches(self) -> list[str]:
        return [path for method, path in self.seen if method == "GET" and "watch=true" in path]

    def reads(self) -> list[str]:
        """Without watches."""
        return [path for method, path in self.seen if method == "GET" and "watch=true" not in path]

    def forget(self) -> None:
        self.seen.clear()

    def refuse(self, method: str, part: str, status: int) -> None:
        """From now on, requests of that method whose path has this part in it, until `accept`."""
        self._refusals.append((method, part, status))

    def accept(self) -> None:
        self._refusals.clear()

    def __enter__(self) -> CountingApi:
        self._process = subprocess.Popen(self._kubectl, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = re.search(r"127\.0\.0\.1:\d+", self._process.stdout.readline())
        assert said is not None
        self._goal = f"http://{said.group()}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._process.terminate()
        self._process.wait()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._write_kubeconfig(runner.addresses[0][1])
        async with ClientSession(timeout=ClientTimeout(total=None)) as session:
            self._session = session
            self._ready.set()
            await self._over.wait()
            await runner.cleanup()

    def _write_kubeconfig(self, port: int) -> None:
        entry = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}, "user": {"token": "t"}}
        entry["context"] = {"cluster": "x", "user": "x"}
        document = {kind: [entry] for kind in ("clusters", "users", "contexts")} | {"current-context": "x"}
        self.kubeconfig.write_text(yaml.safe_dump(document))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path_qs
        if "/leases" not in path:
            self.seen.append((request.method, path))
        for method, part, status in self._refusals:
            if method == request.method and part in path:
                return web.json_response({"message": "refused by the test", "code": status}, status=status)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers.pop("Authorization", None)
        body = await request.read()
        try:
            return await self._pass(request, path, headers, body)
        except (ClientError, ConnectionError) as error:
            return web.json_response({"message": f"the server of the tests is away: {error}", "code": 502}, status=502)

    async def _pass(self, request: web.Request, path: str, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        async with self._session.request(request.method, self._goal + path, headers=headers, data=body) as answer:
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except (ClientConnectionResetError, ClientPayloadError):
                pass  # one of the two has enough of a watch
            return response
