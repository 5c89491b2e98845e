"""A server that signs people in as GitHub does: the web flow of OAuth with PKCE, `/user`, and whose members they are.

    async with GitHubOAuth("alice", ["Acme"]).running() as github:      # `github.url` is web and API in one
        ...

It is strict: a code is good once, for the address and the verifier that it was asked with.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

from aiohttp import web

CLIENT_ID = "the client"
CLIENT_SECRET = "the client's secret"


@dataclass
class GitHubOAuth:
    """`login` is who sits in the browser. `codes` are those that wait, with what they were asked for."""

    login: str
    organisations: list[str] = field(default_factory=list)
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    is_forbidden: bool = False
    """Whether the App may not read members."""
    asked: list[str] = field(default_factory=list)
    """Paths that came with a good token."""

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[GitHubOAuth]:
        app = web.Application()
        app.add_routes(
            [
                web.get("/login/oauth/authorize", self._authorize),
                web.post("/login/oauth/access_token", self._token),
                web.get("/user", self._user),
                web.get("/user/memberships/orgs", self._memberships),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @contextmanager
    def in_a_thread(self) -> Iterator[GitHubOAuth]:
        """For tests that block."""
        loop, begun, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with self.running():
                begun.set()
                await end.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="github")
        thread.start()
        assert begun.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(10)
            loop.close()

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        assert query["client_id"] == CLIENT_ID and query["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = query
        back = urlencode({"code": code, "state": query["state"]})
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{back}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        right = (
            asked is not None
            and (form["client_id"], form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)
            and form["redirect_uri"] == asked["redirect_uri"]
            and challenge == asked["code_challenge"]
        )
        if not right:
            return web.json_response({"error": "bad_verification_code"})
        token = f"gho_{secrets.token_hex(8)}"
        self.tokens.add(token)
        return web.json_response({"access_token": token, "scope": "read:org", "token_type": "bearer"})

    async def _user(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response({"login": self.login, "id": 1})

    async def _memberships(self, request: web.Request) -> web.Response:
        self._check(request)
        if self.is_forbidden:
            raise web.HTTPForbidden(text='{"message": "Resource not accessible by integration"}')
        assert request.query["state"] == "active"
        page, size = int(request.query["page"]), int(request.query["per_page"])
        return web.json_response(
            [
                {"state": "active", "organization": {"login": name, "id": 2}}
                for name in self.organisations[(page - 1) * size : page * size]
            ]
        )

    def _check(self, request: web.Request) -> None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise web.HTTPUnauthorized
        self.asked.append(request.path)
