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
from stoker_gateway.providers.kubernetes.events import Events, Happening, subject_of
from stoker_gateway.providers.kubernetes.judge import Judge, Verdict
from stoker_gateway.providers.kubernetes.lease import Candidate
from stoker_gateway.providers.kubernetes.manifests import DEFAULTS, RESTART, Release, Settings, check_spec
from stoker_gateway.providers.kubernetes.objects import Deployment, Manifest
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.releases import Releases, Resolved, next_release
from stoker_gateway.providers.kubernetes.view import View
from stoker_gateway.revisions import Kept, extended, find, with_content_of
from stoker_gateway.routes import Route
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec, FunctionStatus, RolledBack
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")

MAX_REPLICAS = 1000
"""More is taken for a slip of the finger."""
ATTEMPTS = 5


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
        self._releases = Releases(api, registries, settings)
        self._view = View(api, namespaces, self._heard)
        self._locks: dict[FunctionKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._events = Events(api)
        self._judge = Judge(self._view, self._put_back, self._events)
        self._candidate = candidate
        self._running: list[asyncio.Task[None]] = []

    @property
    def is_leader(self) -> bool:
        return self._candidate is None or self._candidate.is_leader

    async def start(self, listener: RouteListener) -> None:
        await self._view.start(listener)
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self._events.run(), name="tell events")]
        if self._candidate is not None:
            self._running += [
                loop.create_task(self._candidate.run(), name="be a candidate"),
                loop.create_task(self._candidate.lead(self._duty), name="lead"),
            ]

    def _heard(self, key: FunctionKey) -> None:
        """Something of this function has changed."""
        self._judge.heard(key)

    async def _duty(self) -> None:
        """What is done once, however many platforms there are: by the leader."""
        await self._judge.run()

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
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
            is_known = self._is_known(spec.key)
            if not is_known and not create:
                raise NotFound(f"function {spec.service!r} is not deployed in namespace {spec.namespace!r}")
            if is_known and create:
                raise Conflict(f"function {spec.service!r} exists already: update it, or remove it first")
            resolved = await self._releases.resolve(spec)
            return await self._update(spec, resolved) if is_known else await self._create(spec, resolved)

    def _is_known(self, key: FunctionKey) -> bool:
        return self._view.get(key) is not None

    async def _create(self, spec: FunctionSpec, resolved: Resolved) -> int:
        history = [Kept(1, now_rfc3339(), spec, resolved.image)]
        identity = os.urandom(6).hex()
        release = Release(
            spec,
            resolved.image,
            resolved.pinned,
            resolved.mounts,
            identity,
            1,
            spec.min_replicas,
            history=history,
        )
        self._view.saw(await self._releases.create(release))
        return release.revision

    async def _update(self, spec: FunctionSpec, resolved: Resolved, rollback_to: int = 0) -> int:
        for _ in range(ATTEMPTS):
            old = await self._releases.read(spec.key)
            try:
                if spec == old.spec and resolved.image == old.image:
                    await self._releases.complete(old)
                    if old.drift and (made := await self._releases.set_right(old)):
                        self._view.saw(made)
                    return old.revision
                await self._view.until_readiness_is_known(spec.key)
                release = next_release(old, self._view.standing(spec.key), spec, resolved, rollback_to)
                self._view.saw(await self._releases.replace(old, release))
            except Conflict:
                continue  # somebody else has changed it in between
            return release.revision
        raise Conflict(f"function {spec.service!r} is being changed by others all the time: try again")

    async def _put_back(self, key: FunctionKey, verdict: Verdict) -> None:
        """Ask for what served before; its pods serve on, none is started. Nothing, if somebody was quicker."""
        async with self._locks[key]:
            old = await self._releases.read(key)
            kept = with_content_of(old.revisions(), verdict.pods[0])
            if old.revision != verdict.revision or old.rolled_back is not None or kept is None:
                return
            resolved = await self._releases.resolve_to(kept.spec, kept.image)
            trouble, spec = verdict.trouble, kept.spec
            new = Kept(old.revision + 1, now_rfc3339(), spec, kept.image, rollback_to=verdict.pods[0], automatic=True)
            release = Release(
                spec,
                resolved.image,
                resolved.pinned,
                resolved.mounts,
                old.identity,
                new.number,
                old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas),
                restart=verdict.pods[1],
                history=extended(old.revisions(), new, failed=True, serving=kept.number),
                owner=old.owner,
                pods_of=verdict.pods[0],
                rolled_back=RolledBack(
                    old.revision, verdict.pods[0], trouble.message, trouble.code, list(trouble.output)
                ),
            )
            log.warning(
                "%s: revision %d failed, and %d is put back: %s", key, old.revision, kept.number, trouble.message
            )
            self._view.saw(await self._releases.replace(old, release))
        told = f"revision {old.revision} failed, and {kept.number} is put back: {trouble.message}"
        self._events.tell(key, subject_of(old), Happening("RolledBack", told, str(old.revision)))

    def revisions(self, key: FunctionKey) -> list[Kept]:
        return self._view.find(key).revisions()

    async def rollback(self, key: FunctionKey, number: int) -> int:
        """The registry is not asked: the image is the one that the revision had, even if its tag means another now."""
        self._view.find(key)
        async with self._locks[key]:
            kept = find(key, (await self._releases.read(key)).revisions(), number)
            return await self._update(kept.spec, await self._releases.resolve_to(kept.spec, kept.image), number)

    async def remove(self, key: FunctionKey) -> None:
        async with self._locks[key]:
            await self._remove(key)
        self._locks.pop(key, None)

    async def _remove(self, key: FunctionKey) -> None:
        stored = self._view.find(key)
        await self._releases.delete(key, stored.uid)
        self._view.forget(key, stored.uid)

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
            await self._view.until_readiness_is_known(key)
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
