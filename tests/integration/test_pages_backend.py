"""What the pages carry from one call of a function to the next: nothing."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from stoker_gateway.pages.backend import Backend


async def answer(request: web.Request) -> web.Response:
    """The cookies that came; and one is set, as a function may."""
    response = web.Response(text=request.headers.get("Cookie", "none"))
    response.set_cookie("session", "of-alice", path="/")
    return response


async def test_a_function_s_cookies_go_to_no_other_call(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_post("/function/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    socket = tmp_path / "proxy.sock"
    await web.UnixSite(runner, str(socket)).start()
    backend = Backend(f"unix:{tmp_path / 'nobody.sock'}", "", "secret", lambda: False, f"unix:{socket}")
    try:
        first = await backend.call("functions", "alices", "")
        second = await backend.call("functions", "bobs", "")
    finally:
        await backend.close()
        await runner.cleanup()
    assert (first.text, second.text) == ("none", "none")
