"""`/system/scale-function/NAME`: set the number of replicas (contract 2.3, 2.4)."""

from __future__ import annotations

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import last, read_struct
from stoker_gateway.control.functions import key_of_path
from stoker_gateway.control.keys import CONFIG, PROVIDER
from stoker_sdk.errors import BadInput
from stoker_sdk.messages import ScaleServiceRequest


async def scale_function(request: web.Request) -> web.Response:
    """The path names the function; `serviceName` in the body adds nothing.

    `replicas` is required: Go would read a misspelt key as 0, and stop the function.
    """
    body = await read_struct(request, ScaleServiceRequest, request.app[CONFIG].body_limit)
    if body.replicas < 0:
        raise BadInput(f"replicas is {body.replicas}: write 0 or more")
    key = key_of_path(request, body.namespace or last(request, "namespace"))
    await request.app[PROVIDER].scale(key, body.replicas)
    return answers.accepted()


ROUTES = (web.post("/system/scale-function/{name}", scale_function),)
