"""`/system/function/NAME/revisions` and `…/rollback`: a function's history, and putting a part of it live again."""

from __future__ import annotations

import msgspec
from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import last, read_struct
from stoker_gateway.control.functions import REVISION_HEADER, check_secrets, key_of_path
from stoker_gateway.control.keys import CONFIG, ENDPOINTS, NAMESPACES, PROVIDER
from stoker_gateway.revisions import earlier, find, listed
from stoker_sdk.errors import BadInput
from stoker_sdk.function import Condition
from stoker_sdk.messages import Rollback, RollbackRequest


async def list_revisions(request: web.Request) -> web.Response:
    key = key_of_path(request, last(request, "namespace"))
    provider = request.app[PROVIDER]
    return answers.json(listed(provider.revisions(key), provider.get(key).stoker or Condition("", 0)))


async def roll_back(request: web.Request) -> web.Response:
    """Everything that the earlier revision needs is looked for before anything is changed."""
    body = await read_struct(request, RollbackRequest, request.app[CONFIG].body_limit)
    if body.revision < 0:
        raise BadInput(f"revision is {body.revision}: write a number that `stoker revisions` shows")
    key, provider = key_of_path(request, body.namespace or last(request, "namespace")), request.app[PROVIDER]
    history = provider.revisions(key)
    kept = find(key, history, body.revision) if body.revision else earlier(key, history)
    async with request.app[NAMESPACES].written_in(key.namespace):
        try:
            kept.spec.check()
            await check_secrets(request, kept.spec)
            with request.app[ENDPOINTS].reserve(str(key), kept.spec.annotations):
                number = await provider.rollback(key, kept.number)
        except BadInput as error:
            raise BadInput(f"revision {kept.number} cannot be put live again: {error}") from error
    answer = msgspec.json.encode(Rollback(number, kept.number))
    headers = {REVISION_HEADER: str(number)}
    return web.Response(status=202, body=answer, content_type="application/json", headers=headers)


ROUTES = (
    web.get("/system/function/{name}/revisions", list_revisions),
    web.post("/system/function/{name}/rollback", roll_back),
)
