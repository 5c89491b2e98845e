"""What the cluster has, as its watches tell it, and what the proxies are told of that.

The one place where the state of functions is kept; every part of it is the cluster's, and can be read there again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from stoker_gateway.providers.base import RouteListener
from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.health import HealthReasons
from stoker_gateway.providers.kubernetes.manifests import SELECTOR, key_of
from stoker_gateway.providers.kubernetes.objects import Deployment, Pod, version_number
from stoker_gateway.providers.kubernetes.pods import Replica, replica_of
from stoker_gateway.providers.kubernetes.readiness import Readiness
from stoker_gateway.providers.kubernetes.standing import Standing, Stored, stored_of
from stoker_gateway.providers.kubernetes.watch import Watch
from stoker_gateway.routes import Route
from stoker_sdk.errors import NotFound
from stoker_sdk.names import FunctionKey

log = logging.getLogger("stoker.kubernetes")

_KNOWN_SECONDS = 15.0
_LOOK_SECONDS = 0.05


class View:
    """The functions of some namespaces and their replicas. Between `start` and `close` it is kept up to date."""

    def __init__(
        self, api: Api, namespaces: tuple[str, ...], changed: Callable[[FunctionKey], None] = lambda key: None
    ) -> None:
        """`changed` is called whenever something of a function has changed."""
        self._api = api
        self._namespaces = namespaces
        self._told_of = changed
        self._stored: dict[FunctionKey, Stored] = {}
        self._replicas: dict[FunctionKey, dict[str, Replica]] = defaultdict(dict)
        self._forgotten: set[str] = set()
        self._published: dict[FunctionKey, Route] = {}
        self._health = HealthReasons()
        self._readiness = Readiness(self._note)
        self._listener: RouteListener | None = None
        self._changed: dict[FunctionKey, None] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listener: RouteListener) -> None:
        """List, tell every route, and watch from then on. Raises `StokerError` when the cluster cannot be asked."""
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
        await self._readiness.close()

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    # What is asked of it

    def keys(self, namespace: str) -> list[FunctionKey]:
        """In order."""
        return sorted(key for key in self._stored if key.namespace == namespace)

    def all_keys(self) -> list[FunctionKey]:
        return list(self._stored)

    def get(self, key: FunctionKey) -> Stored | None:
        return self._stored.get(key)

    def find(self, key: FunctionKey) -> Stored:
        """Raises `NotFound`."""
        stored = self._stored.get(key)
        if stored is None:
            raise NotFound(f"function {key.name!r} is not deployed in namespace {key.namespace!r}")
        return stored

    def standing(self, key: FunctionKey) -> Standing:
        """Raises `NotFound`."""
        return Standing(self.find(key), self.replicas(key), self._health.reasons)

    def replicas(self, key: FunctionKey) -> list[Replica]:
        """None where there is no such function."""
        return self._readiness.seen(self._own(key))

    def _own(self, key: FunctionKey) -> list[Replica]:
        """Its pods, without those that a removed function of its name has left."""
        stored = self._stored.get(key)
        pods = self._replicas.get(key, {}).values()
        return [one for one in pods if stored is not None and one.identity == stored.identity]

    async def until_readiness_is_known(self, key: FunctionKey) -> None:
        """Before a rollout that is under way is overtaken by another: until the cluster, too, knows who is ready.

        To make room for the new one it ends replicas that it does not know to be ready, the oldest first, and so what
        serves. Waits some seconds at most: a kubelet may look that seldom.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _KNOWN_SECONDS
        while self._is_ahead(key) and loop.time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_ahead(self, key: FunctionKey) -> bool:
        """Whether one is ready that the cluster does not know to be so, and there are replicas of several versions."""
        there = [one for one in self._own(key) if one.state != "draining"]
        seen = self._readiness.seen(there)
        is_early = any(mine.state == "ready" != its.state for its, mine in zip(there, seen, strict=True))
        return is_early and len({one.version for one in there}) > 1

    # What it is told

    def _watches(self, namespace: str) -> tuple[Watch[Deployment], Watch[Pod]]:
        deployments = Watch(
            self._api,
            paths.deployments(namespace),
            SELECTOR,
            Deployment,
            seen=self.saw,
            gone=self._lost_deployment,
            replaced=lambda found: self._replace_deployments(namespace, found),
        )
        pods = Watch(
            self._api,
            paths.pods(namespace),
            SELECTOR,
            Pod,
            seen=self._saw_pod,
            gone=self._lost_pod,
            replaced=lambda found: self._replace_pods(namespace, found),
        )
        return deployments, pods

    def saw(self, seen: Deployment) -> None:
        """A Deployment, from a watch or from the answer to a write."""
        key = key_of(seen.metadata.labels, seen.metadata.namespace)
        stored = stored_of(seen)
        if stored is None:
            log.warning("deployment %s says that it is ours, and holds no function: it is left alone", key)
        elif seen.metadata.deletion_timestamp:
            self.forget(key, stored.uid)
        elif stored.uid in self._forgotten:
            pass  # a watch may bring what was true before it was removed
        elif not self._is_older(stored, self._stored.get(key)):
            self._stored[key] = stored
            self._note(key)

    def _is_older(self, stored: Stored, known: Stored | None) -> bool:
        """A watch may bring what was true before the write whose answer we have."""
        if known is None or known.uid != stored.uid:
            return False
        return version_number(stored.resource_version) < version_number(known.resource_version)

    def forget(self, key: FunctionKey, uid: str) -> None:
        """The function is removed, and does not come back by what is told late."""
        self._forgotten.add(uid)
        known = self._stored.get(key)
        if known is not None and known.uid == uid:
            del self._stored[key]
            self._note(key)

    def _lost_deployment(self, gone: Deployment) -> None:
        key = key_of(gone.metadata.labels, gone.metadata.namespace)
        self.forget(key, gone.metadata.uid)
        self._forgotten.discard(gone.metadata.uid)
        self._note(key)

    def _replace_deployments(self, namespace: str, found: list[Deployment]) -> None:
        there = {one.metadata.uid for one in found}
        self._forgotten &= there
        for key, stored in list(self._stored.items()):
            if key.namespace == namespace and stored.uid not in there:
                del self._stored[key]
                self._note(key)
        for one in found:
            self.saw(one)

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
        self._told_of(key)

    # What the proxies are told

    async def _keep_publishing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._publish()
            except Exception:
                log.exception("a route could not be told")

    async def _publish(self) -> None:
        while self._changed:
            key = next(iter(self._changed))
            del self._changed[key]
            stored = self._stored.get(key)
            self._readiness.look_after(key, stored.spec if stored else None, self._own(key))
            self._health.look_after(self.replicas(key), key, self._note)
            await self._tell(key, self.standing(key).route() if stored else None)

    async def _tell(self, key: FunctionKey, route: Route | None) -> None:
        if route == self._published.get(key):
            return
        if route is None:
            del self._published[key]
        else:
            self._published[key] = route
        if self._listener is not None:
            await self._listener(key, route)
