"""The secrets of functions as Secret objects: one key each, named like the secret (contract sections 2.6 and 10.3).

Those that were made by other means are used by functions like ours, and are not listed.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable

from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.objects import Ignored, List, Manifest, Secret
from stoker_gateway.secrets import check_value
from stoker_sdk.errors import BadInput, Conflict, NotFound, Unprocessable
from stoker_sdk.names import check_namespace, check_secret_name

_LABELS = {"app.kubernetes.io/managed-by": "openfaas"}
_SELECTOR = "app.kubernetes.io/managed-by=openfaas"


class KubernetesSecrets:
    """Implements `Secrets`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, namespace: str, name: str, value: bytes) -> None:
        path, body = _path(namespace), _manifest(namespace, name, value)
        try:
            await self._api.create(path, body, Ignored, f"secret {name!r}")
        except Conflict:
            raise Conflict(f"secret {name!r} exists already: update it, or remove it first") from None

    async def replace(self, namespace: str, name: str, value: bytes) -> None:
        data = _manifest(namespace, name, value)["data"]
        await self._found(namespace, name, self._api.patch(_path(namespace, name), {"data": data}, Ignored, "secret"))

    async def delete(self, namespace: str, name: str) -> None:
        await self._found(namespace, name, self._api.delete(_path(namespace, name), f"secret {name!r}"))

    async def delete_all(self, namespace: str) -> None:
        for name in await self.names(namespace):
            try:
                await self.delete(namespace, name)
            except NotFound:
                pass

    async def names(self, namespace: str) -> list[str]:
        listed = await self._api.get(_path(namespace), List[Secret], "secrets", {"labelSelector": _SELECTOR})
        return sorted(one.metadata.name for one in listed.items)

    async def exists(self, namespace: str, name: str) -> bool:
        try:
            await self._api.get(_path(namespace, name), Ignored, f"secret {name!r}")
        except NotFound:
            return False
        return True

    async def _found(self, namespace: str, name: str, request: Awaitable[object]) -> None:
        try:
            await request
        except NotFound:
            raise NotFound(f"secret {name!r} does not exist in namespace {namespace!r}: create it first") from None


def _manifest(namespace: str, name: str, value: bytes) -> Manifest:
    check_value(name, value)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace, "labels": _LABELS},
        "data": {name: base64.b64encode(value).decode()},
    }


def _path(namespace: str, name: str = "") -> str:
    try:
        folder = f"/api/v1/namespaces/{check_namespace(namespace)}/secrets"
        return f"{folder}/{check_secret_name(name)}" if name else folder
    except BadInput as error:
        raise Unprocessable(str(error)) from None
