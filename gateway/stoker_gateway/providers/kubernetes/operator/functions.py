"""The Function resources of some namespaces: kept in step by a watch for each, and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.objects import ApiResources, Function, Manifest
from stoker_gateway.providers.kubernetes.operator.resource import MARK, Wanted, key_of, manifest
from stoker_gateway.providers.kubernetes.watch import Watch
from stoker_sdk.errors import Conflict, NotFound, StokerError
from stoker_sdk.function_resource import KIND, VERSIONS
from stoker_sdk.names import FunctionKey

CATEGORY = "stoker"
"""By which our definition of the resource is told from another vendor's."""


class Functions:
    """`changed` is called for each one that asks for something else than before, or that is there no more."""

    def __init__(
        self, api: Api, group: str, namespaces: tuple[str, ...], changed: Callable[[FunctionKey], None]
    ) -> None:
        self._api = api
        self.group = group
        self.namespaces = namespaces
        self._changed = changed
        self._known: dict[FunctionKey, Function] = {}
        self._forgotten: set[str] = set()
        self.watches = [self._watch(namespace) for namespace in namespaces]

    async def check(self) -> None:
        """Raises `StokerError` unless the cluster serves the resource, by our definition of it."""
        version = f"{self.group}/{VERSIONS[0]}"
        name = f"functions.{self.group}"
        try:
            found = await self._api.get(f"/apis/{version}", ApiResources, f"the resources of {version}")
        except NotFound:
            raise StokerError(
                f"the cluster has no CRD {name}: install it with the chart (operator.enabled=true), or name the group "
                "that it has with --crd-group"
            ) from None
        served = {one.name: one for one in found.resources}
        ours = served.get("functions")
        if ours is None or ours.kind != KIND or not ours.namespaced or CATEGORY not in (ours.categories or []):
            raise StokerError(
                f"the CRD {name} of the cluster is not Stoker's: choose another group with --crd-group (operator.group "
                "of the chart), or remove the CRD and what it belongs to"
            )
        if "functions/status" not in served:
            raise StokerError(f"the CRD {name} of the cluster has no status: install it anew with the chart")

    # What is known

    def get(self, key: FunctionKey) -> Function | None:
        return self._known.get(key)

    def all_keys(self) -> list[FunctionKey]:
        return list(self._known)

    def saw(self, function: Function) -> None:
        """From a watch or from the answer to a write."""
        key, known = key_of(function), self._known.get(key_of(function))
        metadata = function.metadata
        if metadata.uid in self._forgotten or (known is not None and metadata.is_older(known.metadata)):
            return  # a watch may bring what was true before the write whose answer we have
        self._known[key] = function
        if known is None or _asks(known) != _asks(function):
            self._changed(key)

    def forget(self, key: FunctionKey, uid: str) -> None:
        """It is removed, and does not come back by what is told late."""
        self._forgotten.add(uid)
        known = self._known.get(key)
        if known is not None and known.metadata.uid == uid:
            del self._known[key]
            self._changed(key)

    def _watch(self, namespace: str) -> Watch[Function]:
        return Watch(
            self._api,
            paths.functions(self.group, namespace),
            "",
            Function,
            seen=self.saw,
            gone=self._lost,
            replaced=lambda found: self._replace(namespace, found),
        )

    def _lost(self, gone: Function) -> None:
        self.forget(key_of(gone), gone.metadata.uid)
        self._forgotten.discard(gone.metadata.uid)

    def _replace(self, namespace: str, found: list[Function]) -> None:
        there = {one.metadata.uid for one in found}
        self._forgotten &= there
        for key, known in list(self._known.items()):
            if key.namespace == namespace and known.metadata.uid not in there:
                del self._known[key]
                self._changed(key)
        for one in found:
            self.saw(one)

    # Reading and writing

    async def read(self, key: FunctionKey) -> Function | None:
        """As it is now; None when there is none, or it is being deleted."""
        try:
            found = await self._api.get(paths.function(self.group, key), Function, _what(key))
        except NotFound:
            return None
        self.saw(found)
        return None if found.metadata.deletion_timestamp else found

    async def create(self, asked: Wanted) -> Function:
        """Raises `Conflict` when there is one."""
        key = asked.spec.key
        body = manifest(asked, self.group)
        try:
            made = await self._api.create(paths.functions(self.group, key.namespace), body, Function, _what(key))
        except Conflict:
            raise Conflict(
                f"function {key.name!r} exists already as a resource: update it, or remove it first"
            ) from None
        self.saw(made)
        return made

    async def replace(self, key: FunctionKey, version: str, asked: Wanted) -> None:
        """Raises `Conflict` when it is not of that version any more, and `NotFound`. What is not ours in it stays."""
        path = paths.function(self.group, key)
        body: dict[str, Any] = await self._api.get(path, dict[str, Any], _what(key))
        made = manifest(asked, self.group)
        annotations = body["metadata"].get("annotations") or {}
        body["metadata"]["annotations"] = annotations | {MARK: made["metadata"]["annotations"][MARK]}
        body["metadata"]["resourceVersion"] = version
        self.saw(await self._api.replace(path, body | {"spec": made["spec"]}, Function, _what(key)))

    async def delete(self, key: FunctionKey, uid: str) -> None:
        """The one of that uid, and with it, some time later, what it owns. That it is gone is no error."""
        only = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._api.delete(paths.function(self.group, key), _what(key), only)
        except NotFound:
            pass
        self.forget(key, uid)

    async def write_status(self, function: Function, status: Manifest) -> None:
        """Raises `Conflict` when the resource was changed since."""
        key = key_of(function)
        body = {"metadata": {"resourceVersion": function.metadata.resource_version}, "status": status}
        path = f"{paths.function(self.group, key)}/status"
        self.saw(await self._api.patch(path, body, Function, f"the status of {_what(key)}"))


def _what(key: FunctionKey) -> str:
    return f"resource of function {key.name!r} in namespace {key.namespace!r}"


def _asks(function: Function) -> tuple[str, int, str, bool]:
    metadata = function.metadata
    return metadata.uid, metadata.generation, metadata.annotation(MARK), bool(metadata.deletion_timestamp)
