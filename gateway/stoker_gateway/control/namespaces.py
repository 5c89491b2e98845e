"""`/system/namespaces` and `/system/namespace/NAME`: list, create, describe, change, delete (contract 2.7)."""

from __future__ import annotations

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import read_struct
from stoker_gateway.control.keys import CONFIG, NAMESPACES, PROVIDER, SECRETS
from stoker_gateway.namespaces import MARK
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.messages import FunctionNamespace
from stoker_sdk.names import FunctionKey


def existing_namespace(request: web.Request, name: str) -> str:
    """The namespace, the default one when empty. Raises `BadInput` for one that does not exist."""
    return request.app[NAMESPACES].existing(name)


async def empty_namespace(app: web.Application, name: str) -> None:
    """Remove all functions and then all secrets of a namespace; what is gone already is no error."""
    provider, secrets = app[PROVIDER], app[SECRETS]
    for status in provider.list(name):
        try:
            await provider.remove(FunctionKey(name, status.name))
        except NotFound:
            pass
    await secrets.delete_all(name)


async def list_namespaces(request: web.Request) -> web.Response:
    return answers.json(request.app[NAMESPACES].names())


async def describe_namespace(request: web.Request) -> web.Response:
    return answers.json(request.app[NAMESPACES].get(request.match_info["name"]))


async def create_namespace(request: web.Request) -> web.Response:
    """201, as faasd answers: the one route where clients of the contract expect that."""
    await request.app[NAMESPACES].create(await _read(request))
    return web.Response(status=201)


async def update_namespace(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    request.app[NAMESPACES].get(name)
    await request.app[NAMESPACES].update(await _read(request, name))
    return answers.accepted()


async def delete_namespace(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    await _read(request, name)
    await request.app[NAMESPACES].delete(name, lambda name: empty_namespace(request.app, name))
    return answers.accepted()


async def _read(request: web.Request, name: str = "") -> FunctionNamespace:
    """The body, which must carry the mark, and the name of the path where that has one."""
    body = await read_struct(request, FunctionNamespace, request.app[CONFIG].body_limit)
    if not body.name:
        raise BadInput("name: is required")
    if name and body.name != name:
        raise BadInput(f"the body names namespace {body.name[:80]!r}, the path {name[:80]!r}: write the same in both")
    marks = ((body.labels or {}).get(MARK), (body.annotations or {}).get(MARK))
    if not {"1", "true"} & set(marks):
        raise BadInput(f"the label {MARK}=1 is missing, which says that a namespace is for functions: add it")
    return body


ROUTES = (
    web.get("/system/namespaces", list_namespaces),
    *(web.get(path, list_namespaces) for path in ("/system/namespace", "/system/namespace/")),
    *(web.post(path, create_namespace) for path in ("/system/namespace", "/system/namespace/")),
    web.get("/system/namespace/{name}", describe_namespace),
    web.put("/system/namespace/{name}", update_namespace),
    web.delete("/system/namespace/{name}", delete_namespace),
)
