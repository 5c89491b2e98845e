"""`/system/builds`: a tar of a handler goes in, the build's log comes out, and at its end an image reference.

The builder is a process of its own, so that nothing it does can harm the API. Few run at a time; the others
wait in line and are told so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from stoker_gateway.control.bodies import check_announced_length, chunks
from stoker_gateway.control.build_process import Builders, BuildProcess
from stoker_gateway.control.keys import BUILD_PLACES, CONFIG
from stoker_gateway.control.streams import LineStream, answer_with_lines, end_task
from stoker_sdk.errors import StokerError, Unavailable, Unprocessable

log = logging.getLogger(__name__)

BUILDERS: web.AppKey[Builders] = web.AppKey("builders", Builders)


async def keep_builders(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`: the builders of this application, for as long as it runs."""
    config = app[CONFIG]
    app[BUILDERS] = Builders(config.build_command, config.build_grace, ahead=config.build_ahead)
    app[BUILDERS].open()
    yield
    await app[BUILDERS].close()


async def build(request: web.Request) -> web.StreamResponse:
    config = request.app[CONFIG]
    if not config.build_command:
        raise Unavailable("this platform builds nothing: deploy an image that is built already")
    check_announced_length(request, config.upload_limit)
    return await answer_with_lines(request, lambda stream: _wait_and_build(request, stream))


async def _wait_and_build(request: web.Request, stream: LineStream) -> None:
    places = request.app[BUILD_PLACES]
    if places.locked():
        running = request.app[CONFIG].builds_at_once
        await stream.send({"log": f"waiting: this build starts when one of the {running} running here ends"})
    async with places:
        try:
            await _build(request, stream)
        except StokerError as error:
            if not stream.is_open:
                raise
            await stream.send({"error": str(error), "code": error.code})


async def _build(request: web.Request, stream: LineStream) -> None:
    config = request.app[CONFIG]
    builders = request.app[BUILDERS]
    process = await builders.take()
    try:
        async with asyncio.timeout(config.build_timeout):
            finished = await _talk(request, process, stream)
        exit_code = await process.settle(config.build_grace)
    except TimeoutError:
        raise Unprocessable(
            f"the build did not end within {config.build_timeout:g} seconds and was stopped: let it take less, "
            "or raise --build-time"
        ) from None
    finally:
        await process.end(config.build_grace)
        builders.refill()
    if not finished:
        log.error("the builder ended without a result, exit code %s", exit_code)
        raise StokerError(f"the builder ended without a result (exit code {exit_code}): the platform's log says why")


async def _talk(request: web.Request, process: BuildProcess, stream: LineStream) -> bool:
    """Pass upload in and lines out. Whether there was a result; raises what is wrong with the upload."""
    config = request.app[CONFIG]
    feeding = asyncio.create_task(process.feed(chunks(request, config.upload_limit, config.upload_idle)))
    relaying = asyncio.create_task(_relay(process, stream))
    try:
        await asyncio.wait({feeding, relaying}, return_when=asyncio.FIRST_COMPLETED)
        if not relaying.done():
            await feeding
        return await relaying
    finally:
        await end_task(feeding)
        await end_task(relaying)


async def _relay(process: BuildProcess, stream: LineStream) -> bool:
    async for text in process.lines():
        line = _read_line(text)
        await stream.send(line)
        if "image" in line or "error" in line:
            return True
    return False


def _read_line(text: bytes) -> dict[str, object]:
    """The builder's line; something else that got into its output is log."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {"log": text.decode(errors="replace")}


ROUTES = (web.post("/system/builds", build),)
