"""The provider in operator mode: what is asked of the API is written into Function resources, and done from there.

The one who asks does not wait for the operator to notice: the platform that has written the resource does at once what
it says. Replicas and restarts are no part of a resource, and are the Deployment's alone: what scales functions must not
change what a Git repository holds.
"""

from __future__ import annotations

import asyncio

from stoker_gateway.providers.base import RouteListener
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.lease import Candidate
from stoker_gateway.providers.kubernetes.manifests import DEFAULTS, Release, Settings
from stoker_gateway.providers.kubernetes.operator.functions import Functions
from stoker_gateway.providers.kubernetes.operator.operator import Operator
from stoker_gateway.providers.kubernetes.operator.reconciler import Reconciler
from stoker_gateway.providers.kubernetes.operator.resource import Wanted, wanted
from stoker_gateway.providers.kubernetes.operator.status import told
from stoker_gateway.providers.kubernetes.provider import ATTEMPTS, KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.releases import Resolved, next_release
from stoker_gateway.providers.kubernetes.standing import Stored
from stoker_sdk.errors import BadInput, Conflict, NotFound
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.names import FunctionKey


class OperatorProvider(KubernetesProvider):
    """Implements `Provider`. `group` is that of the Function resources."""

    def __init__(
        self,
        api: Api,
        namespaces: tuple[str, ...],
        registries: Registries,
        group: str,
        settings: Settings = DEFAULTS,
        candidate: Candidate | None = None,
    ) -> None:
        super().__init__(api, namespaces, registries, settings, candidate)
        self._functions = Functions(api, group, namespaces, self._resource_changed)
        self._reconciler = Reconciler(self._functions, self._view, self._releases)
        self.operator = Operator(
            api, self._functions, self._view, self._releases, self._reconciler, self._locks, self._events
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listener: RouteListener) -> None:
        await self._functions.check()
        for watch in self._functions.watches:
            await watch.list()
        await super().start(listener)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(watch.run(), name=f"watch {watch}") for watch in self._functions.watches]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().close()

    async def _duty(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(super()._duty(), name="judge")
            tasks.create_task(self.operator.run(), name="operator")

    def _heard(self, key: FunctionKey) -> None:
        super()._heard(key)
        self.operator.note(key)

    def _resource_changed(self, key: FunctionKey) -> None:
        self.operator.note_resource(key)

    def get(self, key: FunctionKey) -> FunctionStatus:
        try:
            return super().get(key)
        except NotFound:
            function = self._functions.get(key)
            if function is None:
                raise
            said = told(function) or "it is looked at"
            raise NotFound(f"function {key.name!r} has a resource, and is not deployed yet: {said}") from None

    # The verbs that write resources; the others are those of the Deployment

    def _is_known(self, key: FunctionKey) -> bool:
        return self._functions.get(key) is not None or super()._is_known(key)

    async def _create(self, spec: FunctionSpec, resolved: Resolved) -> int:
        """Resource, Deployment and Service, or none of them."""
        made = await self._functions.create(Wanted(spec, resolved.image))
        try:
            return await self._reconciler.reconcile(spec.key)
        except BaseException:
            await self._functions.delete(spec.key, made.metadata.uid)
            raise

    async def _update(self, spec: FunctionSpec, resolved: Resolved, rollback_to: int = 0) -> int:
        for _ in range(ATTEMPTS):
            old = await self._releases.find(spec.key)
            function = await self._functions.read(spec.key)
            if function is None:
                await self._adopt(spec.key, old)
                continue
            try:
                is_asked = wanted(function).spec == spec
            except BadInput:
                is_asked = False
            # Who deploys it by name means what is there, even where resource and Deployment came from two.
            adopts = old.uid if old is not None and old.owner is None else ""
            if old is None or adopts or not is_asked or (old.spec, old.image) != (spec, resolved.image):
                asked = Wanted(spec, resolved.image, rollback_to, old.revision if old else 0, adopts)
                try:
                    if old is not None:
                        await self._releases.try_replace(old, self._next(old, spec, resolved, rollback_to))
                    await self._functions.replace(spec.key, function.metadata.resource_version, asked)
                except (Conflict, NotFound):
                    continue  # somebody else has changed it in between
            return await self._reconciler.reconcile(spec.key)
        raise Conflict(f"function {spec.service!r} is being changed by others all the time: try again")

    async def _adopt(self, key: FunctionKey, old: Stored | None) -> None:
        """Give what was deployed without the operator a resource, which asks for what there is already.

        What cannot be finished here the operator finishes: to take the resource back could remove the function.
        """
        if old is None or old.owner is not None:
            raise Conflict(f"function {key.name!r} has no resource of its own: remove it, and deploy it again")
        await self._functions.create(Wanted(old.spec, old.image, adopts=old.uid))
        await self._reconciler.reconcile(key)

    def _next(self, old: Stored, spec: FunctionSpec, resolved: Resolved, rollback_to: int) -> Release:
        standing = self._view.standing(spec.key) if self._view.get(spec.key) else None
        return next_release(old, standing, spec, resolved, rollback_to)

    async def _remove(self, key: FunctionKey) -> None:
        function = self._functions.get(key)
        if function is None:
            await super()._remove(key)
            return
        await self._functions.delete(key, function.metadata.uid)
        if self._view.get(key) is not None:
            await super()._remove(key)
