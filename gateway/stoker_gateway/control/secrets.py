"""`/system/secrets`: create, replace, delete and list; values go in and never come out (contract 2.6)."""

from __future__ import annotations

import logging

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import last, read_struct
from stoker_gateway.control.keys import CONFIG, NAMESPACES, PROVIDER, SECRETS
from stoker_gateway.control.namespaces import existing_namespace
from stoker_sdk.errors import StokerError, Unprocessable
from stoker_sdk.messages import Secret
from stoker_sdk.names import FunctionKey

log = logging.getLogger(__name__)


async def list_secrets(request: web.Request) -> web.Response:
    namespace = existing_namespace(request, last(request, "namespace"))
    names = await request.app[SECRETS].names(namespace)
    return answers.json([{"name": name, "namespace": namespace} for name in names])


async def create_secret(request: web.Request) -> web.Response:
    secret, namespace = await _read(request)
    async with request.app[NAMESPACES].written_in(namespace):
        await request.app[SECRETS].create(namespace, secret.name, _content(secret))
    # A function can be waiting for it: `faas-cli secret apply` deletes and creates instead of replacing.
    await _restart_users(request.app, namespace, secret.name)
    return answers.accepted()


async def replace_secret(request: web.Request) -> web.Response:
    secret, namespace = await _read(request)
    async with request.app[NAMESPACES].written_in(namespace):
        await request.app[SECRETS].replace(namespace, secret.name, _content(secret))
    await _restart_users(request.app, namespace, secret.name)
    return answers.accepted()


async def delete_secret(request: web.Request) -> web.Response:
    secret, namespace = await _read(request)
    await request.app[SECRETS].delete(namespace, secret.name)
    return answers.accepted()


async def _read(request: web.Request) -> tuple[Secret, str]:
    secret = await read_struct(request, Secret, request.app[CONFIG].secret_body_limit)
    if not secret.name:
        raise Unprocessable("name: is required; it says which secret")
    return secret, existing_namespace(request, secret.namespace or last(request, "namespace"))


def _content(secret: Secret) -> bytes:
    """Raw bytes win over text when there are any; neither is trimmed (contract section 16, quirk 26)."""
    return secret.raw_value or secret.value.encode()


async def _restart_users(app: web.Application, namespace: str, name: str) -> None:
    """Begin to replace the replicas that hold the old value. The secret is stored, whatever comes of this."""
    for status in app[PROVIDER].list(namespace):
        if name in (status.secrets or []):
            try:
                await app[PROVIDER].restart(FunctionKey(namespace, status.name))
            except StokerError as error:
                log.warning("%s keeps the old value of secret %s: %s", status.name, name, error)


ROUTES = (
    web.get("/system/secrets", list_secrets),
    web.post("/system/secrets", create_secret),
    web.put("/system/secrets", replace_secret),
    web.delete("/system/secrets", delete_secret),
)
