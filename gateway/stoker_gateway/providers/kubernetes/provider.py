"""The provider of a cluster: each function is a Deployment and a Service, and what runs is learned by watching.

Nothing is kept here that the cluster does not have: any number of these may run beside each other, and one that starts
finds everything by two lists. While the API is away, routes stay as they were, and writes are `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec

from stoker_gateway.providers.base import LogLine, LogQuery, RouteListener
from stoker_gateway.providers.kubernetes import logs
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.credentials import Login, read_pull_secret
from stoker_gateway.providers.kubernetes.health import HealthReasons
from stoker_gateway.providers.kubernetes.manifests import (
    DEFAULTS,
    PULL_SECRET_TYPES,
    RESTART,
    SELECTOR,
    Mounts,
    Release,
    Settings,
    check_spec,
    deployment,
    key_of,
    mounts_of,
    service,
)
from stoker_gateway.providers.kubernetes.objects import Deployment, Manifest, Metadata, Pod, Secret
from stoker_gateway.providers.kubernetes.pods import Replica, replica_of
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.standing import Standing, Stored, stored_of
from stoker_gateway.providers.kubernetes.watch import Watch
from stoker_gateway.routes import Route
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.names import FunctionKey

log = logging.getLogger("stoker.kubernetes")

MAX_REPLICAS = 1000
"""More is taken for a slip of the finger."""
_ATTEMPTS = 5


class _Any(msgspec.Struct):
    """An answer of which nothing is read."""


class KubernetesProvider:
    """Implements `Provider` for the functions of some namespaces. Functions outlive this process."""

    name = "kubernetes"

    def __init__(
        self, api: Api, namespaces: tuple[str, ...], registries: Registries, settings: Settings = DEFAULTS
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._registries = registries
        self._settings = settings
        self._stored: dict[FunctionKey, Stored] = {}
        self._replicas: dict[FunctionKey, dict[str, Replica]] = defaultdict(dict)
        self._published: dict[FunctionKey, Route] = {}
        self._health = HealthReasons()
        self._listener: RouteListener | None = None
        self._changed: dict[FunctionKey, None] = {}
        self._news = asyncio.Event()
        self._locks: dict[FunctionKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listener: RouteListener) -> None:
        self._listener = listener
        watches = [watch for namespace in self._namespaces for watch in self._watches(namespace)]
        for watch in watches:
            await watch.list()
        await self._publish()
        for watch in watches:
            self._run(watch.run(), f"watch {watch}")
        self._run(self._keep_publishing(), "publish routes")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._health.close()
        await self._api.close()

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    # What is there

    def _watches(self, namespace: str) -> tuple[Watch[Deployment], Watch[Pod]]:
        deployments = Watch(
            self._api,
            _deployments(namespace),
            SELECTOR,
            Deployment,
            seen=self._saw_deployment,
            gone=lambda gone: self._forget(key_of(gone.metadata.labels, namespace), gone.metadata.uid),
            replaced=lambda found: self._replace_deployments(namespace, found),
        )
        pods = Watch(
            self._api,
            f"/api/v1/namespaces/{namespace}/pods",
            SELECTOR,
            Pod,
            seen=self._saw_pod,
            gone=self._lost_pod,
            replaced=lambda found: self._replace_pods(namespace, found),
        )
        return deployments, pods

    def _saw_deployment(self, seen: Deployment) -> None:
        key = key_of(seen.metadata.labels, seen.metadata.namespace)
        stored = stored_of(seen)
        if stored is None:
            log.warning("deployment %s says that it is ours, and holds no function: it is left alone", key)
        elif seen.metadata.deletion_timestamp:
            self._forget(key, stored.uid)
        elif not self._is_older(stored, self._stored.get(key)):
            self._stored[key] = stored
            self._note(key)

    def _is_older(self, stored: Stored, known: Stored | None) -> bool:
        """A watch may bring what was true before the write whose answer we have."""
        if known is None or known.uid != stored.uid:
            return False
        return _version(stored.resource_version) < _version(known.resource_version)

    def _forget(self, key: FunctionKey, uid: str) -> None:
        known = self._stored.get(key)
        if known is not None and known.uid == uid:
            del self._stored[key]
            self._note(key)

    def _replace_deployments(self, namespace: str, found: list[Deployment]) -> None:
        there = {one.metadata.uid for one in found}
        for key, stored in list(self._stored.items()):
            if key.namespace == namespace and stored.uid not in there:
                self._forget(key, stored.uid)
        for one in found:
            self._saw_deployment(one)

    def _saw_pod(self, pod: Pod) -> None:
        replica = replica_of(pod)
        self._replicas[replica.key][replica.id] = replica
        self._note(replica.key)

    def _lost_pod(self, pod: Pod) -> None:
        key = key_of(pod.metadata.labels, pod.metadata.namespace)
        self._replicas[key].pop(pod.metadata.name, None)
        if not self._replicas[key]:
            del self._replicas[key]
        self._note(key)

    def _replace_pods(self, namespace: str, found: list[Pod]) -> None:
        for key in [key for key in self._replicas if key.namespace == namespace]:
            del self._replicas[key]
            self._note(key)
        for pod in found:
            self._saw_pod(pod)

    def _note(self, key: FunctionKey) -> None:
        self._changed[key] = None
        self._news.set()

    # What the proxies are told

    async def _keep_publishing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._publish()

    async def _publish(self) -> None:
        while self._changed:
            key = next(iter(self._changed))
            del self._changed[key]
            standing = self._standing(key)
            self._health.look_after(standing.replicas if standing else (), key, self._note)
            route = standing.route() if standing else None
            if route == self._published.get(key):
                continue
            if route is None:
                del self._published[key]
            else:
                self._published[key] = route
            if self._listener is not None:
                await self._listener(key, route)

    def _standing(self, key: FunctionKey) -> Standing | None:
        stored = self._stored.get(key)
        if stored is None:
            return None
        own = [one for one in self._replicas.get(key, {}).values() if one.identity == stored.identity]
        return Standing(stored, own, self._health.reasons)

    # The verbs

    async def deploy(self, spec: FunctionSpec, *, create: bool) -> int:
        spec = msgspec.structs.replace(spec, namespace=spec.key.namespace)
        if spec.namespace not in self._namespaces:
            raise BadInput(f"namespace {spec.namespace!r} is none that this platform runs functions in")
        check_spec(spec)
        async with self._locks[spec.key]:
            known = self._stored.get(spec.key)
            if known is None and not create:
                raise NotFound(f"function {spec.service!r} is not deployed in namespace {spec.namespace!r}")
            if known is not None and create:
                raise Conflict(f"function {spec.service!r} exists already: update it, or remove it first")
            mounts, image, pinned = await self._resolve(spec)
            if known is None:
                return await self._create(
                    Release(spec, image, pinned, mounts, os.urandom(6).hex(), 1, spec.min_replicas)
                )
            return await self._update(spec, mounts, image, pinned)

    async def _resolve(self, spec: FunctionSpec) -> tuple[Mounts, str, bool]:
        """Its secrets by their use, and the image that its tag means now."""
        secrets = [await self._secret(spec, name) for name in spec.secrets or []]
        mounts = mounts_of([(one.metadata.name, one.type, tuple(one.data or {})) for one in secrets])
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

    async def _secret(self, spec: FunctionSpec, name: str) -> Secret:
        path = f"/api/v1/namespaces/{spec.namespace}/secrets/{name}"
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
                _deployments(spec.namespace), deployment(release, self._settings), Deployment, what
            )
        except Conflict:
            raise Conflict(
                f"deployment {spec.service!r} exists in namespace {spec.namespace!r} and is no function of this "
                "platform, or is just being removed: choose another name, or remove it with kubectl"
            ) from None
        try:
            await self._make_service(spec, made.metadata.uid)
        except BaseException:
            await self._api.delete(_deployment(spec.key), what)
            raise
        self._saw_deployment(made)
        return release.revision

    async def _make_service(self, spec: FunctionSpec, owner: str) -> None:
        body, what = service(spec, owner), f"service {spec.service!r}"
        try:
            await self._api.create(f"/api/v1/namespaces/{spec.namespace}/services", body, _Any, what)
        except Conflict:
            found = await self._api.get(_service(spec.key), _Named, what)
            if (found.metadata.labels or {}).items() >= body["metadata"]["labels"].items():
                # Its predecessor's, which the cluster has not collected yet.
                await self._api.patch(_service(spec.key), {"metadata": body["metadata"]}, _Any, what)
                return
            raise Conflict(
                f"service {spec.service!r} exists in namespace {spec.namespace!r} and is no function's of this "
                "platform: choose another name, or remove it with kubectl"
            ) from None

    async def _update(self, spec: FunctionSpec, mounts: Mounts, image: str, pinned: bool) -> int:
        for _ in range(_ATTEMPTS):
            old = await self._read(spec.key)
            if spec == old.spec and image == old.image:
                return old.revision
            replicas = old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas)
            release = Release(spec, image, pinned, mounts, old.identity, old.revision + 1, replicas)
            body = deployment(release, self._settings)
            body["metadata"]["resourceVersion"] = old.resource_version
            try:
                self._saw_deployment(
                    await self._api.replace(_deployment(spec.key), body, Deployment, f"deployment {spec.service!r}")
                )
            except Conflict:
                continue  # somebody else has changed it in between
            if old.spec.annotations != spec.annotations:
                metadata: Manifest = {"metadata": service(spec)["metadata"]}
                await self._api.patch(_service(spec.key), metadata, _Any, f"service {spec.service!r}")
            return release.revision
        raise Conflict(f"function {spec.service!r} is being changed by others all the time: try again")

    async def _read(self, key: FunctionKey) -> Stored:
        """As it is now: a cache may be behind what another process has written."""
        stored = stored_of(await self._api.get(_deployment(key), Deployment, f"function {key.name!r}"))
        if stored is None:
            raise Conflict(f"deployment {key.name!r} in namespace {key.namespace!r} is no function of this platform")
        return stored

    async def remove(self, key: FunctionKey) -> None:
        async with self._locks[key]:
            stored = self._find(key)
            only = {"propagationPolicy": "Background", "preconditions": {"uid": stored.uid}}
            try:
                await self._api.delete(_deployment(key), f"deployment {key.name!r}", only)
            except NotFound:
                pass  # kubectl was quicker, and its Service goes with it
            else:
                await self._delete_service(key)
            self._forget(key, stored.uid)
        self._locks.pop(key, None)

    async def _delete_service(self, key: FunctionKey) -> None:
        """The cluster's collector would take it too, and only some time later."""
        try:
            await self._api.delete(_service(key), f"service {key.name!r}")
        except NotFound:
            pass

    async def scale(self, key: FunctionKey, replicas: int) -> None:
        stored = self._find(key)
        if not 0 <= replicas <= MAX_REPLICAS:
            raise BadInput(f"{replicas} replicas are not possible: ask for 0 to {MAX_REPLICAS}")
        async with self._locks[key]:
            await self._scale(key, min(replicas, stored.spec.max_replicas))

    async def _scale(self, key: FunctionKey, replicas: int) -> None:
        if self._find(key).replicas != replicas:
            await self._patch(key, {"spec": {"replicas": replicas}})

    async def wake(self, key: FunctionKey) -> None:
        """A hundred calls at once make one request: the others find that it has been made."""
        try:
            async with self._locks[key]:
                stored = self._stored.get(key)
                if stored is not None and stored.replicas == 0:
                    await self._scale(key, stored.spec.min_replicas)
        except StokerError as error:
            log.error("%s could not be woken: %s", key, error)

    async def restart(self, key: FunctionKey) -> None:
        self._find(key)
        mark = datetime.now(UTC).isoformat(timespec="microseconds")
        async with self._locks[key]:
            await self._patch(key, {"spec": {"template": {"metadata": {"annotations": {RESTART: mark}}}}})

    async def _patch(self, key: FunctionKey, change: Manifest) -> None:
        self._saw_deployment(await self._api.patch(_deployment(key), change, Deployment, f"deployment {key.name!r}"))

    # What is told

    def list(self, namespace: str) -> list[FunctionStatus]:
        return [self.get(key) for key in sorted(self._stored) if key.namespace == namespace]

    def get(self, key: FunctionKey) -> FunctionStatus:
        self._find(key)
        standing = self._standing(key)
        assert standing is not None
        return standing.status()

    def route(self, key: FunctionKey) -> Route:
        """What the proxies were told of the function, or will be."""
        self._find(key)
        standing = self._standing(key)
        assert standing is not None
        return standing.route()

    def _find(self, key: FunctionKey) -> Stored:
        stored = self._stored.get(key)
        if stored is None:
            raise NotFound(f"function {key.name!r} is not deployed in namespace {key.namespace!r}")
        return stored

    async def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        self._find(key)

        def pods() -> list[str]:
            standing = self._standing(key)
            replicas = standing.replicas if standing else ()
            return [one.id for one in replicas if not query.instance or one.id == query.instance]

        if not query.follow:
            for line in await logs.read(self._api, key, pods(), query):
                yield line
            return
        async with aclosing(logs.follow(self._api, key, pods, lambda: key in self._stored, query)) as lines:
            async for line in lines:
                yield line


class _Named(msgspec.Struct):
    metadata: Metadata


def _deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def _deployment(key: FunctionKey) -> str:
    return f"{_deployments(key.namespace)}/{key.name}"


def _service(key: FunctionKey) -> str:
    return f"/api/v1/namespaces/{key.namespace}/services/{key.name}"


def _version(text: str) -> int:
    """Versions grow: what the API's documentation once kept open, and every server does."""
    return int(text) if text.isdigit() else 0
