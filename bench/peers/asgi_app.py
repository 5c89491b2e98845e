"""The trivial handler as a bare ASGI application, without any framework, for uvicorn."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Message = Mapping[str, Any]
_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"6")]


async def app(scope: Message, receive: object, send: Callable[[Message], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"hello\n"})
