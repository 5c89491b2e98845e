"""The provider of a cluster: each function is a Deployment and a Service, and what runs is learned by watching.

Nothing is kept here that the cluster does not have: any number of these may run beside each other, and one that starts
finds everything by two lists. While the API is away, routes stay as they were, and writes are `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec

from stoker_gateway.providers.base import LogLine, LogQuery, RouteListener
from stoker_gateway.providers.kubernetes import logs, paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.credentials import Login, read_pull_secret
from stoker_gateway.providers.kubernetes.judge import Judge, Verdict
from stoker_gateway.providers.kubernetes.lease import Candidate
from stoker_gateway.providers.kubernetes.manifests import (
    DEFAULTS,
    PULL_SECRET_TYPES,
    RESTART,
    Mounts,
    Release,
    Settings,
    check_spec,
    deployment,
    mounts_of,
    service,
)
from stoker_gateway.providers.kubernetes.objects import Deployment, Ignored, Manifest, Metadata, Secret
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.standing import Stored, stored_of
from stoker_gateway.providers.kubernetes.view import View
from stoker_gateway.revisions import Kept, extended, find, with_content_of
from stoker_gateway.routes import Route
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec, FunctionStatus, RolledBack
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")

MAX_REPLICAS = 1000
"""More is taken for a slip of the finger."""
_ATTEMPTS = 5


class KubernetesProvider:
    """Implements `Provider` for the functions of some namespaces. Functions outlive this process."""

    name = "kubernetes"

    def __init__(
        self,
        api: Api,
        namespaces: tuple[str, ...],
        registries: Registries,
        settings: Settings = DEFAULTS,
        candidate: Candidate | None = None,
    ) -> None:
        """Without a candidate somebody else does what must be done once."""
        self._api = api
        self._namespaces = namespaces
        self._registries = registries
        self._settings = settings
        self._view = View(api, namespaces, lambda key: self._judge.heard(key))
        self._locks: dict[FunctionKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._judge = Judge(self._view, self._put_back)
        self._candidate = candidate
        self._leading: list[asyncio.Task[None]] = []

    @property
    def is_leader(self) -> bool:
        return self._candidate is None or self._candidate.is_leader

    async def start(self, listener: RouteListener) -> None:
        await self._view.start(listener)
        if self._candidate is not None:
            loop = asyncio.get_running_loop()
            self._leading = [
                loop.create_task(self._candidate.run(), name="be a candidate"),
                loop.create_task(self._candidate.lead(self._duty), name="lead"),
            ]

    async def _duty(self) -> None:
        """What is done once, however many platforms there are: by the leader."""
        await self._judge.run()

    async def close(self) -> None:
        for task in self._leading:
            task.cancel()
        await asyncio.gather(*self._leading, return_exceptions=True)
        if self._candidate is not None:
            await self._candidate.release()
        await self._view.close()
        await self._api.close()

    # The verbs

    async def deploy(self, spec: FunctionSpec, *, create: bool) -> int:
        spec = msgspec.structs.replace(spec, namespace=spec.key.namespace)
        if spec.namespace not in self._namespaces:
            raise BadInput(f"namespace {spec.namespace!r} is none that this platform runs functions in")
        check_spec(spec)
        async with self._locks[spec.key]:
            known = self._view.get(spec.key)
            if known is None and not create:
                raise NotFound(f"function {spec.service!r} is not deployed in namespace {spec.namespace!r}")
            if known is not None and create:
                raise Conflict(f"function {spec.service!r} exists already: update it, or remove it first")
            mounts, image, pinned = await self._resolve(spec)
            if known is None:
                history = [Kept(1, now_rfc3339(), spec, image)]
                return await self._create(
                    Release(spec, image, pinned, mounts, os.urandom(6).hex(), 1, spec.min_replicas, history=history)
                )
            return await self._update(spec, mounts, image, pinned)

    async def _resolve(self, spec: FunctionSpec) -> tuple[Mounts, str, bool]:
        """Its secrets by their use, and the image that its tag means now."""
        mounts, secrets = await self._secrets_of(spec)
        logins: list[dict[str, Login]] = [
            read_pull_secret(one.metadata.name, one.type, one.data or {})
            for one in secrets
            if one.type in PULL_SECRET_TYPES
        ]
        try:
            return mounts, await self._registries.pin(spec.image, logins), True
        except Unavailable as error:
            if spec.setting("unpinned") == "true":
                log.warning("%s runs an image that is not pinned: %s", spec.key, error)
                return mounts, spec.image, False
            raise Unavailable(f"{error}. Deploy with --unpinned to run whatever the tag means on each node") from None

    async def _secrets_of(self, spec: FunctionSpec) -> tuple[Mounts, list[Secret]]:
        secrets = [await self._secret(spec, name) for name in spec.secrets or []]
        return mounts_of([(one.metadata.name, one.type, tuple(one.data or {})) for one in secrets]), secrets

    async def _secret(self, spec: FunctionSpec, name: str) -> Secret:
        path = paths.secret(spec.key.namespace, name)
        try:
            return await self._api.get(path, Secret, f"secret {name!r}")
        except NotFound:
            raise BadInput(f"secret {name!r} does not exist in namespace {spec.namespace!r}: create it first") from None

    async def _create(self, release: Release) -> int:
        """Both objects or none."""
        spec = release.spec
        what = f"deployment {spec.service!r}"
        try:
            made = await self._api.create(
                paths.deployments(spec.namespace), deployment(release, self._settings), Deployment, what
            )
        except Conflict:
            raise Conflict(
                f"deployment {spec.service!r} exists in namespace {spec.namespace!r} and is no function of this "
                "platform, or is just being removed: choose another name, or remove it with kubectl"
            ) from None
        try:
            await self._make_service(spec, made.metadata.uid)
        except BaseException:
            await self._api.delete(paths.deployment(spec.key), what)
            raise
        self._view.saw(made)
        return release.revision

    async def _make_service(self, spec: FunctionSpec, owner: str) -> None:
        body, what = service(spec, owner), f"service {spec.service!r}"
        try:
            await self._api.create(paths.services(spec.key.namespace), body, Ignored, what)
        except Conflict:
            found = await self._api.get(paths.service(spec.key), _Named, what)
            if (found.metadata.labels or {}).items() >= body["metadata"]["labels"].items():
                # Its predecessor's, which the cluster has not collected yet.
                await self._api.patch(paths.service(spec.key), {"metadata": body["metadata"]}, Ignored, what)
                return
            raise Conflict(
                f"service {spec.service!r} exists in namespace {spec.namespace!r} and is no function's of this "
                "platform: choose another name, or remove it with kubectl"
            ) from None

    async def _update(self, spec: FunctionSpec, mounts: Mounts, image: str, pinned: bool, rollback_to: int = 0) -> int:
        for _ in range(_ATTEMPTS):
            old = await self._read(spec.key)
            if spec == old.spec and image == old.image:
                return old.revision
            replicas = old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas)
            new = Kept(old.revision + 1, now_rfc3339(), spec, image, rollback_to=rollback_to)
            release = Release(
                spec, image, pinned, mounts, old.identity, new.number, replicas, history=self._extended(old, new)
            )
            try:
                await self._replace(old, release)
            except Conflict:
                continue  # somebody else has changed it in between
            return release.revision
        raise Conflict(f"function {spec.service!r} is being changed by others all the time: try again")

    async def _replace(self, old: Stored, release: Release) -> None:
        spec = release.spec
        body = deployment(release, self._settings)
        body["metadata"]["resourceVersion"] = old.resource_version
        what = f"deployment {spec.service!r}"
        self._view.saw(await self._api.replace(paths.deployment(spec.key), body, Deployment, what))
        if old.spec.annotations != spec.annotations:
            metadata: Manifest = {"metadata": service(spec)["metadata"]}
            await self._api.patch(paths.service(spec.key), metadata, Ignored, f"service {spec.service!r}")

    async def _put_back(self, key: FunctionKey, verdict: Verdict) -> None:
        """Ask for what served before; its pods serve on, none is started. Nothing, if somebody was quicker."""
        async with self._locks[key]:
            old = await self._read(key)
            kept = with_content_of(old.revisions(), verdict.pods[0])
            if old.revision != verdict.revision or old.rolled_back is not None or kept is None:
                return
            mounts, _ = await self._secrets_of(kept.spec)
            trouble, spec = verdict.trouble, kept.spec
            new = Kept(old.revision + 1, now_rfc3339(), spec, kept.image, rollback_to=verdict.pods[0], automatic=True)
            release = Release(
                spec,
                kept.image,
                "@" in kept.image,
                mounts,
                old.identity,
                new.number,
                old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas),
                restart=verdict.pods[1],
                history=extended(old.revisions(), new, failed=True, serving=kept.number),
                pods_of=verdict.pods[0],
                rolled_back=RolledBack(
                    old.revision, verdict.pods[0], trouble.message, trouble.code, list(trouble.output)
                ),
            )
            log.warning(
                "%s: revision %d failed, and %d is put back: %s", key, old.revision, kept.number, trouble.message
            )
            await self._replace(old, release)

    def _extended(self, old: Stored, new: Kept) -> list[Kept]:
        standing = self._view.standing(new.spec.key).status().stoker
        if standing is None or standing.revision != old.revision:  # the watch is behind
            return extended(old.revisions(), new, failed=False, serving=0)
        return extended(old.revisions(), new, failed=standing.state == "failed", serving=standing.serving)

    def revisions(self, key: FunctionKey) -> list[Kept]:
        return self._view.find(key).revisions()

    async def rollback(self, key: FunctionKey, number: int) -> int:
        """The registry is not asked: the image is the one that the revision had, even if its tag means another now."""
        self._view.find(key)
        async with self._locks[key]:
            kept = find(key, (await self._read(key)).revisions(), number)
            mounts, _ = await self._secrets_of(kept.spec)
            return await self._update(kept.spec, mounts, kept.image, "@" in kept.image, rollback_to=number)

    async def _read(self, key: FunctionKey) -> Stored:
        """As it is now: a cache may be behind what another process has written."""
        stored = stored_of(await self._api.get(paths.deployment(key), Deployment, f"function {key.name!r}"))
        if stored is None:
            raise Conflict(f"deployment {key.name!r} in namespace {key.namespace!r} is no function of this platform")
        return stored

    async def remove(self, key: FunctionKey) -> None:
        async with self._locks[key]:
            stored = self._view.find(key)
            only = {"propagationPolicy": "Background", "preconditions": {"uid": stored.uid}}
            try:
                await self._api.delete(paths.deployment(key), f"deployment {key.name!r}", only)
            except NotFound:
                pass  # kubectl was quicker, and its Service goes with it
            else:
                await self._delete_service(key)
            self._view.forget(key, stored.uid)
        self._locks.pop(key, None)

    async def _delete_service(self, key: FunctionKey) -> None:
        """The cluster's collector would take it too, and only some time later."""
        try:
            await self._api.delete(paths.service(key), f"service {key.name!r}")
        except NotFound:
            pass

    async def scale(self, key: FunctionKey, replicas: int) -> None:
        stored = self._view.find(key)
        if not 0 <= replicas <= MAX_REPLICAS:
            raise BadInput(f"{replicas} replicas are not possible: ask for 0 to {MAX_REPLICAS}")
        async with self._locks[key]:
            await self._scale(key, min(replicas, stored.spec.max_replicas))

    async def _scale(self, key: FunctionKey, replicas: int) -> None:
        if self._view.find(key).replicas != replicas:
            await self._patch(key, {"spec": {"replicas": replicas}})

    async def wake(self, key: FunctionKey) -> None:
        """A hundred calls at once make one request: the others find that it has been made."""
        if self._view.get(key) is None:
            return
        try:
            async with self._locks[key]:
                stored = self._view.get(key)
                if stored is not None and stored.replicas == 0:
                    await self._scale(key, stored.spec.min_replicas)
        except StokerError as error:
            log.error("%s could not be woken: %s", key, error)

    async def restart(self, key: FunctionKey) -> None:
        self._view.find(key)
        mark = datetime.now(UTC).isoformat(timespec="microseconds")
        async with self._locks[key]:
            await self._patch(key, {"spec": {"template": {"metadata": {"annotations": {RESTART: mark}}}}})

    async def _patch(self, key: FunctionKey, change: Manifest) -> None:
        self._view.saw(await self._api.patch(paths.deployment(key), change, Deployment, f"deployment {key.name!r}"))

    # What is told

    def list(self, namespace: str) -> list[FunctionStatus]:
        return [self.get(key) for key in self._view.keys(namespace)]

    def get(self, key: FunctionKey) -> FunctionStatus:
        return self._view.standing(key).status()

    def route(self, key: FunctionKey) -> Route:
        """What the proxies were told of the function, or will be."""
        return self._view.standing(key).route()

    async def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        self._view.find(key)

        def pods() -> list[str]:
            return [one.id for one in self._view.replicas(key) if not query.instance or one.id == query.instance]

        if not query.follow:
            for line in await logs.read(self._api, key, pods(), query):
                yield line
            return
        async with aclosing(logs.follow(self._api, key, pods, lambda: self._view.get(key) is not None, query)) as lines:
            async for line in lines:
                yield line


class _Named(msgspec.Struct):
    metadata: Metadata
