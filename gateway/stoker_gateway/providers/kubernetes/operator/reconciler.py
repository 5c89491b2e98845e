"""Does what a Function resource asks for: one resource, one pass, and nothing where nothing differs.

Any number of processes may do so for the same resource. The Deployment is read before the resource, and written only as
it was read: whoever decides by an old resource finds that the Deployment has changed, and looks again.
"""

from __future__ import annotations

import logging
from typing import Any

from stoker_gateway.providers.kubernetes.drift import named
from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import Owner, Release
from stoker_gateway.providers.kubernetes.objects import Function, Service
from stoker_gateway.providers.kubernetes.operator.functions import Functions
from stoker_gateway.providers.kubernetes.operator.resource import Wanted, key_of, owner, wanted
from stoker_gateway.providers.kubernetes.releases import Releases, Resolved, Taken, next_release, service_drift
from stoker_gateway.providers.kubernetes.standing import Stored
from stoker_gateway.providers.kubernetes.view import View
from stoker_gateway.revisions import Kept, extended
from stoker_sdk.errors import BadInput, Conflict, NotFound, Unavailable
from stoker_sdk.function_resource import KIND
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")

_ATTEMPTS = 5


class Reconciler:
    """The caller sees to it that one of its tasks at a time works on a function."""

    def __init__(self, functions: Functions, view: View, releases: Releases) -> None:
        self._functions = functions
        self._view = view
        self._releases = releases
        self._insisted: dict[FunctionKey, tuple[str, str, str]] = {}
        """The Deployments in which the cluster wants what others have changed: uid, what was written, what is there."""
        self._insisted_services: dict[FunctionKey, tuple[str, str]] = {}
        """The same of Services, by uid and version."""

    def is_settled(self, function: Function) -> bool:
        """Whether the function is as its resource says, by what the watches have told: no request is made."""
        stored = self._view.get(key_of(function))
        if stored is None:
            return False
        try:
            asked = wanted(function)
        except BadInput:
            return False
        return stored.owner == self.owner(function) and asked.is_done(stored)

    def owner(self, function: Function) -> Owner:
        return owner(function, self._functions.group)

    async def reconcile(self, key: FunctionKey) -> int:
        """The revision that the resource asks for, whose rollout has begun. An error leaves all as it was.

        `NotFound` is raised when there is no such resource.
        """
        for _ in range(_ATTEMPTS):
            old = await self._releases.find(key)
            function = await self._functions.read(key)
            if function is None:
                raise NotFound(f"function {key.name!r} is removed, or is just being removed")
            asked = wanted(function)
            if old is not None:
                if old.owner is None and old.uid == asked.adopts:
                    await self._adopt(function, old)
                    continue
                self._check_owner(function, old)
                if asked.is_done(old):
                    return old.revision
            try:
                return await self._create(function, asked) if old is None else await self._update(old, asked)
            except Taken:
                if await self._releases.find(key) is None:
                    raise
            except (Conflict, NotFound):
                pass  # somebody else has changed it in between
        raise Conflict(f"function {key.name!r} is being changed by others all the time: try again")

    async def set_right(self, function: Function) -> tuple[str, ...]:
        """Undo what others have changed in the Deployment that was made for it; which fields that were.

        Where the watches have told of no such change, no request is made. A Deployment that has lost the labels that
        are watched is gone for them, so one of which they do not know is looked at.
        """
        key = key_of(function)
        stored = self._view.get(key)
        if stored is not None and (not stored.drift or self._is_insisted(key, stored)):
            return ()
        for _ in range(_ATTEMPTS):
            old = await self._releases.read(key)
            if not old.drift or old.owner != self.owner(function) or self._is_insisted(key, old):
                return ()
            try:
                made = await self._releases.set_right(old)
            except Conflict:
                continue  # somebody else has changed it in between
            if made is not None:
                self._view.saw(made)
                return old.drift
            self._insisted[key] = _content(old)
            log.warning("%s: something in the cluster insists on another value of %s", key, named(old.drift))
            return ()
        return ()  # each of these changes is heard of, and brings it here again

    async def set_service_right(self, stored: Stored, found: Service) -> tuple[str, ...]:
        """The same of its Service, as it was listed."""
        key, fields = stored.spec.key, service_drift(stored, found)
        version = (found.metadata.uid, found.metadata.resource_version)
        if not fields or self._insisted_services.get(key) == version:
            return ()
        if await self._releases.set_service_right(stored, found):
            return fields
        self._insisted_services[key] = version
        log.warning("%s: something in the cluster insists on another value of %s of the Service", key, named(fields))
        return ()

    def _is_insisted(self, key: FunctionKey, stored: Stored) -> bool:
        return self._insisted.get(key) == _content(stored)

    def _check_owner(self, function: Function, old: Stored) -> None:
        name, namespace = function.metadata.name, function.metadata.namespace
        if old.owner == self.owner(function):
            return
        if old.owner is not None and (old.owner.api, old.owner.kind) == (self.owner(function).api, KIND):
            raise Unavailable(f"deployment {name!r} in namespace {namespace!r} is a removed function's, and just goes")
        raise Taken(
            f"deployment {name!r} in namespace {namespace!r} is a function that was deployed without this resource: "
            f"deploy it by the stoker command, which makes it the resource's; or, when it is gone (kubectl delete "
            f"deployment -n {namespace} {name}), the resource takes its place"
        )

    async def _adopt(self, function: Function, old: Stored) -> None:
        """Make it the resource's, unless somebody else has changed it in between."""
        try:
            self._view.saw(await self._releases.adopt(old, self.owner(function)))
        except Conflict:
            pass

    async def _update(self, old: Stored, asked: Wanted) -> int:
        await self._view.until_readiness_is_known(asked.spec.key)
        standing = self._view.standing(asked.spec.key) if self._view.get(asked.spec.key) else None
        release = next_release(old, standing, asked.spec, await self.resolve(asked), asked.rollback_to)
        self._view.saw(await self._releases.replace(old, release))
        return release.revision

    async def _create(self, function: Function, asked: Wanted) -> int:
        """The first Deployment, or the one that takes the place of what somebody has deleted."""
        history = _history(function, asked)
        last = history[-1] if history else None
        if last is None or not asked.is_of(last):
            resolved = await self.resolve(asked)
            new = Kept((last.number if last else 0) + 1, now_rfc3339(), asked.spec, resolved.image)
            history = extended(history, new, failed=False, serving=0) if last else [new]
        else:
            resolved = await self._releases.resolve_to(asked.spec, last.image)
        release = Release(
            asked.spec,
            resolved.image,
            resolved.pinned,
            resolved.mounts,
            function.metadata.uid,
            history[-1].number,
            _replicas(function, asked),
            history=history,
            owner=self.owner(function),
        )
        self._view.saw(await self._releases.create(release))
        return release.revision

    async def resolve(self, asked: Wanted) -> Resolved:
        if asked.image:
            return await self._releases.resolve_to(asked.spec, asked.image)
        return await self._releases.resolve(asked.spec)


def _content(stored: Stored) -> tuple[str, str, str]:
    return stored.uid, stored.packed_record, stored.drift_sum


def _history(function: Function, asked: Wanted) -> list[Kept]:
    """The revisions that there were before the Deployment was deleted."""
    packed = _status(function, "history")
    kept = unpacked(packed) if isinstance(packed, str) else []
    return [one for one in kept if one.spec.key == asked.spec.key]


def _replicas(function: Function, asked: Wanted) -> int:
    """As many as there were before."""
    spec, before = asked.spec, _status(function, "replicas")
    if not isinstance(before, int):
        return spec.min_replicas
    return before and min(max(before, spec.min_replicas), spec.max_replicas)


def _status(function: Function, name: str) -> Any:
    return function.status.get(name) if isinstance(function.status, dict) else None
