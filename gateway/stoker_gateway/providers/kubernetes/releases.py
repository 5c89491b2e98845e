"""Deployment and Service of a function, read and written: the one place for what the API and a resource ask for.

Every write is of a version that was read, so of two that write at the same time one is refused and looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from stoker_gateway.providers.images.credentials import Login, read_pull_secret
from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.drift import differences, unpacked_record
from stoker_gateway.providers.kubernetes.manifests import (
    PULL_SECRET_TYPES,
    Mounts,
    Owner,
    Release,
    Settings,
    deployment,
    mounts_of,
    service,
)
from stoker_gateway.providers.kubernetes.objects import Deployment, Ignored, Manifest, Named, Secret, Service
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.standing import Standing, Stored, stored_of
from stoker_gateway.revisions import Kept, extended
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")


class Taken(Conflict):
    """An object of the function's name is there, and is not ours to change."""


@dataclass(frozen=True)
class Resolved:
    """What a function means now: its secrets by their use, and its image, which is `pinned` when it has a digest."""

    mounts: Mounts
    image: str
    pinned: bool


class Releases:
    """Raises `StokerError`s only."""

    def __init__(self, api: Api, registries: Registries, settings: Settings) -> None:
        self._api = api
        self._registries = registries
        self._settings = settings

    # What a function means

    async def resolve(self, spec: FunctionSpec) -> Resolved:
        """Asks the registry what the image's tag means."""
        mounts, secrets = await self._secrets_of(spec)
        logins: list[dict[str, Login]] = [
            read_pull_secret(one.metadata.name, one.type, one.data or {})
            for one in secrets
            if one.type in PULL_SECRET_TYPES
        ]
        try:
            return Resolved(mounts, await self._registries.pin(spec.image, logins), True)
        except Unavailable as error:
            if spec.setting("unpinned") == "true":
                log.warning("%s runs an image that is not pinned: %s", spec.key, error)
                return Resolved(mounts, spec.image, False)
            raise Unavailable(f"{error}. Deploy with --unpinned to run whatever the tag means on each node") from None

    async def resolve_to(self, spec: FunctionSpec, image: str) -> Resolved:
        """With an image that is known already: no registry is asked."""
        mounts, _ = await self._secrets_of(spec)
        return Resolved(mounts, image, "@" in image)

    async def _secrets_of(self, spec: FunctionSpec) -> tuple[Mounts, list[Secret]]:
        secrets = [await self._secret(spec, name) for name in spec.secrets or []]
        return mounts_of([(one.metadata.name, one.type, tuple(one.data or {})) for one in secrets]), secrets

    async def _secret(self, spec: FunctionSpec, name: str) -> Secret:
        path = paths.secret(spec.key.namespace, name)
        try:
            return await self._api.get(path, Secret, f"secret {name!r}")
        except NotFound:
            raise BadInput(f"secret {name!r} does not exist in namespace {spec.namespace!r}: create it first") from None

    # What the cluster holds

    async def read(self, key: FunctionKey) -> Stored:
        """As it is now: a cache may be behind what another process has written. Raises `NotFound`, and `Taken`."""
        found = await self._api.get(paths.deployment(key), Deployment, f"function {key.name!r}")
        stored = stored_of(found)
        if stored is None:
            raise Taken(
                f"deployment {key.name!r} in namespace {key.namespace!r} is no function of this platform: choose "
                "another name, or remove it with kubectl"
            )
        if found.metadata.deletion_timestamp:
            raise Unavailable(f"deployment {key.name!r} in namespace {key.namespace!r} is just being removed")
        return stored

    async def find(self, key: FunctionKey) -> Stored | None:
        """The same, and None when there is none."""
        try:
            return await self.read(key)
        except NotFound:
            return None

    async def create(self, release: Release) -> Deployment:
        """Both objects or none. Raises `Taken`."""
        spec = release.spec
        what = f"deployment {spec.service!r}"
        await self._has_service(spec)
        try:
            made = await self._api.create(
                paths.deployments(spec.key.namespace), deployment(release, self._settings), Deployment, what
            )
        except Conflict:
            raise Taken(
                f"deployment {spec.service!r} exists in namespace {spec.namespace!r} and is no function of this "
                "platform, or is just being removed: choose another name, or remove it with kubectl"
            ) from None
        try:
            await self._make_service(spec, release.owner or Owner("apps/v1", "Deployment", made.metadata.uid))
        except BaseException as error:
            await self._take_back(spec.key, error)
            raise
        return made

    async def _take_back(self, key: FunctionKey, error: BaseException) -> None:
        """Remove the Deployment again. If that fails too, the error says so: the next deploy completes the function."""
        try:
            await self._api.delete(paths.deployment(key), f"deployment {key.name!r}")
        except StokerError as left:
            if isinstance(error, StokerError):
                told = f"{error}; and what was made stays, since {left}: deploy again, or remove it"
                raise type(error)(told) from error
            raise

    async def complete(self, stored: Stored) -> None:
        """Make its Service if there is none: a deploy may have broken off before, or somebody removed it."""
        await self.ensure_service(stored.spec, owner_of_service(stored))

    async def ensure_service(self, spec: FunctionSpec, owner: Owner) -> None:
        """Make it if there is none. Raises `Taken`."""
        if not await self._has_service(spec):
            await self._make_service(spec, owner)

    async def _make_service(self, spec: FunctionSpec, owner: Owner) -> None:
        body, what = service(spec, owner), f"service {spec.service!r}"
        try:
            await self._api.create(paths.services(spec.key.namespace), body, Ignored, what)
        except Conflict:
            await self._has_service(spec)
            # Its predecessor's, which the cluster has not collected yet.
            await self._api.patch(paths.service(spec.key), {"metadata": body["metadata"]}, Ignored, what)

    async def _has_service(self, spec: FunctionSpec) -> bool:
        """Raises `Taken` when there is one that is not ours."""
        try:
            found = await self._api.get(paths.service(spec.key), Named, f"service {spec.service!r}")
        except NotFound:
            return False
        if not (found.metadata.labels or {}).items() >= service(spec)["metadata"]["labels"].items():
            raise Taken(
                f"service {spec.service!r} exists in namespace {spec.namespace!r} and is no function's of this "
                "platform: choose another name, or remove it with kubectl"
            )
        return True

    async def replace(self, old: Stored, release: Release) -> Deployment:
        """Raises `Conflict` when the Deployment is not as `old` says any more."""
        spec = release.spec
        made = await self._put(old, release)
        await self.complete(old)
        if old.spec.annotations != spec.annotations:
            metadata: Manifest = {"metadata": service(spec)["metadata"]}
            await self._api.patch(paths.service(spec.key), metadata, Ignored, f"service {spec.service!r}")
        return made

    async def try_replace(self, old: Stored, release: Release) -> None:
        """Raises what `replace` would, and changes nothing."""
        await self._put(old, release, {"dryRun": "All"})

    async def adopt(self, old: Stored, owner: Owner) -> Deployment:
        """Give both objects to another; its pods are not touched. Raises `Conflict` as `replace` does."""
        await self.complete(old)
        given: Manifest = {"metadata": {"ownerReferences": service(old.spec, owner)["metadata"]["ownerReferences"]}}
        await self._api.patch(paths.service(old.spec.key), given, Ignored, f"service {old.spec.service!r}")
        given["metadata"]["resourceVersion"] = old.resource_version
        path, what = paths.deployment(old.spec.key), f"deployment {old.spec.service!r}"
        return await self._api.patch(path, given, Deployment, what)

    async def set_right(self, old: Stored) -> Deployment | None:
        """Undo what others have changed in the Deployment; None where that would not help.

        The cluster itself may insist on a change, by a webhook, so it is asked first what would come of it: else each
        look would be another write. The generation tells of any change of the spec, but of none of a label. Raises
        `Conflict` when the Deployment is not as `old` says any more.
        """
        record = unpacked_record(old.packed_record)
        record["metadata"] = record.get("metadata", {}) | {"resourceVersion": old.resource_version}
        path, what = paths.deployment(old.spec.key), f"deployment {old.spec.service!r}"
        tried = stored_of(await self._api.patch(path, record, Deployment, what, {"dryRun": "All"}))
        if tried is None or (tried.generation, tried.drift) == (old.generation, old.drift):
            return None
        return await self._api.patch(path, record, Deployment, what)

    async def set_service_right(self, stored: Stored, found: Service) -> bool:
        """The same of its Service; False where that would not help."""
        wanted, there = service(stored.spec)["spec"], found.spec if isinstance(found.spec, dict) else {}
        spec = wanted | {"selector": dict.fromkeys(there.get("selector") or {}) | wanted["selector"]}
        body = {"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": spec}
        path, what = paths.service(stored.spec.key), f"service {stored.spec.service!r}"
        tried = await self._api.patch(path, body, Service, what, {"dryRun": "All"})
        if service_drift(stored, tried) == service_drift(stored, found):
            return False
        await self._api.patch(path, body, Ignored, what)
        return True

    async def _put(self, old: Stored, release: Release, query: Mapping[str, str] = {}) -> Deployment:
        spec, body = release.spec, deployment(release, self._settings)
        body["metadata"]["resourceVersion"] = old.resource_version
        return await self._api.replace(
            paths.deployment(spec.key), body, Deployment, f"deployment {spec.service!r}", query
        )

    async def delete(self, key: FunctionKey, uid: str) -> None:
        """The Deployment of that uid and its Service; that they are gone already is no error."""
        only = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._api.delete(paths.deployment(key), f"deployment {key.name!r}", only)
        except NotFound:
            return  # kubectl was quicker, and its Service goes with it
        try:
            # The cluster's collector would take it too, and only some time later.
            await self._api.delete(paths.service(key), f"service {key.name!r}")
        except NotFound:
            pass


def service_drift(stored: Stored, found: Service) -> tuple[str, ...]:
    """The fields of its Service that are not as the platform writes them."""
    wanted, there = service(stored.spec)["spec"], found.spec if isinstance(found.spec, dict) else {}
    more = (f"spec.selector.{name}" for name in there.get("selector") or {} if name not in wanted["selector"])
    return (*differences(wanted, there, "spec"), *more)


def owner_of_service(stored: Stored) -> Owner:
    return stored.owner or Owner("apps/v1", "Deployment", stored.uid)


def next_release(
    old: Stored, standing: Standing | None, spec: FunctionSpec, resolved: Resolved, rollback_to: int = 0
) -> Release:
    """What follows `old`; `standing` is how it stands, which a watch may tell of an earlier revision."""
    new = Kept(old.revision + 1, now_rfc3339(), spec, resolved.image, rollback_to=rollback_to)
    condition = standing.status().stoker if standing else None
    if condition is None or condition.revision != old.revision:
        history = extended(old.revisions(), new, failed=False, serving=0)
    else:
        history = extended(old.revisions(), new, failed=condition.state == "failed", serving=condition.serving)
    return Release(
        spec,
        resolved.image,
        resolved.pinned,
        resolved.mounts,
        old.identity,
        new.number,
        replicas=old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas),
        history=history,
        owner=old.owner,
    )
