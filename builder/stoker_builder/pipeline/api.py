"""`/system/runs`: list, show, log, retry, cancel; and the key for sealed secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from stoker_builder.pipeline.app import answered
from stoker_builder.pipeline.runs import Runs
from stoker_builder.pipeline.seal_key import read_seal_key
from stoker_sdk.errors import BadInput
from stoker_sdk.runs import STATES, Run, RunLine, SealKey
from stoker_sdk.sealing import public_key_of

_MOST: Final = 500


class RunsApi:
    """`seal_key` is the file of the key that opens sealed secrets."""

    def __init__(self, runs: Runs, seal_key: Path) -> None:
        self._runs = runs
        self._seal_key = seal_key

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/system/runs", self._list),
            web.get("/system/runs/{id}", self._show),
            web.get("/system/runs/{id}/log", self._log),
            web.post("/system/runs/{id}/retry", self._retry),
            web.delete("/system/runs/{id}", self._cancel),
            web.get("/system/seal-key", self._show_seal_key),
        )

    async def _list(self, request: web.Request) -> web.Response:
        """Filters: `owner`, `repository`, `state`; the newest first, those before the id `before`, `limit` of them."""
        query = request.query
        if (state := query.get("state", "")) and state not in STATES:
            raise BadInput(f"state {state[:40]!r} is none of {', '.join(STATES)}")
        limit = min(_number(query.get("limit") or "50", "limit"), _MOST)
        before = _number(query.get("before") or "0", "before")
        found = [run for run in self._runs.all() if _matches(run, query) and (not before or run.id < before)]
        return answered(found[:limit])

    async def _show(self, request: web.Request) -> web.Response:
        return answered(self._runs.get(_id(request)))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """Lines of JSON. With `follow=true` until the run has ended."""
        id = _id(request)
        self._runs.get(id)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        if request.query.get("follow") != "true":
            lines = await self._runs.lines(id)
            await response.prepare(request)
            await response.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            return response
        await response.prepare(request)
        async for item in self._runs.follow(id):
            if isinstance(item, RunLine):
                await response.write(msgspec.json.encode(item) + b"\n")
        return response

    async def _retry(self, request: web.Request) -> web.Response:
        return answered(await self._runs.retry(_id(request)), status=202)

    async def _cancel(self, request: web.Request) -> web.Response:
        return answered(await self._runs.cancel(_id(request)))

    async def _show_seal_key(self, request: web.Request) -> web.Response:
        return answered(SealKey(public_key_of(read_seal_key(self._seal_key))))


def _matches(run: Run, query: Mapping[str, str]) -> bool:
    values = {"owner": run.push.owner, "repository": run.push.repository, "state": run.state}
    return all(query.get(key, "").lower() in ("", value.lower()) for key, value in values.items())


def _id(request: web.Request) -> int:
    return _number(request.match_info["id"], "the run's id")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadInput(f"{what} is {text[:40]!r}: write a whole number")
    return int(text)
