"""A proxy as one writes it in ten lines with aiohttp, server and client: `python aiohttp_proxy.py PORT BACKEND`."""

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web


async def sessions(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(auto_decompress=False) as app[SESSION]:
        yield


async def forward(request: web.Request) -> web.Response:
    body = await request.read() if request.can_read_body else None
    async with request.app[SESSION].request(request.method, BACKEND, headers=request.headers, data=body) as answer:
        return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


SESSION = web.AppKey("session", ClientSession)
BACKEND = sys.argv[2]
app = web.Application()
app.cleanup_ctx.append(sessions)
app.router.add_route("*", "/{path:.*}", forward)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
