"""A provider whose replicas exist only in memory: a full citizen of the interface, for tests and dry runs.

Replicas are ready as soon as they are asked for, unless a test says that their image is broken. The
contract test over all providers keeps it honest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from stoker_gateway.providers.base import LogLine, LogQuery, RouteListener
from stoker_gateway.revisions import Kept, extended, find
from stoker_gateway.routes import Route, Target, route_annotations
from stoker_sdk.errors import BadInput, Conflict, NotFound
from stoker_sdk.function import Condition, FunctionSpec, FunctionStatus, Instance
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import format_duration, now_rfc3339, parse_rfc3339

MAX_REPLICAS = 1000
"""More is taken for a slip of the finger."""


@dataclass
class _Function:
    """One stored function: what was asked for, which revision serves, which replicas pretend to run."""

    spec: FunctionSpec
    revision: int
    replicas: int
    created_at: str
    history: list[Kept]
    serving: int = 0
    failure: str = ""
    instances: list[str] = field(default_factory=list)
    sick: dict[str, str] = field(default_factory=dict)
    born: int = 0

    @property
    def healthy(self) -> list[str]:
        return [instance for instance in self.instances if not self.sick.get(instance)]


class MemoryProvider:
    """Runs nothing, and answers like a provider that does."""

    name = "memory"
    is_leader = True

    def __init__(self, address: Callable[[str], str] = "unix:/nowhere/{}.sock".format) -> None:
        """`address` gives a replica's address by its id; a test may point it at a server of its own."""
        self._address = address
        self._functions: dict[FunctionKey, _Function] = {}
        self._broken: dict[str, str] = {}
        self._lines: dict[FunctionKey, list[LogLine]] = {}
        self._printed = asyncio.Condition()
        self._listener: RouteListener | None = None

    async def start(self, listener: RouteListener) -> None:
        self._listener = listener
        for key in self._functions:
            await self._report(key)

    async def close(self) -> None:
        self._listener = None

    async def deploy(self, spec: FunctionSpec, *, create: bool) -> int:
        function = self._functions.get(spec.key)
        if function is None:
            return await self._create(spec, create)
        if create:
            raise Conflict(f"function {spec.service!r} exists already: update it, or remove it first")
        return await self._update(function, spec)

    def revisions(self, key: FunctionKey) -> list[Kept]:
        return list(self._find(key).history)

    async def rollback(self, key: FunctionKey, number: int) -> int:
        function = self._find(key)
        return await self._update(function, find(key, function.history, number).spec, rollback_to=number)

    async def remove(self, key: FunctionKey) -> None:
        self._find(key)
        del self._functions[key]
        self._lines.pop(key, None)
        await self._tell_followers()
        await self._report(key)

    async def scale(self, key: FunctionKey, replicas: int) -> None:
        function = self._find(key)
        if not 0 <= replicas <= MAX_REPLICAS:
            raise BadInput(f"replicas is {replicas}: write a whole number from 0 to {MAX_REPLICAS}")
        function.replicas = replicas
        self._settle(function)
        await self._report(key)

    async def wake(self, key: FunctionKey) -> None:
        function = self._functions.get(key)
        if function is not None and not function.replicas:
            await self.scale(key, 1)

    def list(self, namespace: str) -> list[FunctionStatus]:
        return [self.get(key) for key in sorted(self._functions) if key.namespace == namespace]

    def get(self, key: FunctionKey) -> FunctionStatus:
        function = self._find(key)
        return FunctionStatus.of(
            function.spec,
            created_at=function.created_at,
            replicas=function.replicas,
            available_replicas=len(function.healthy),
            stoker=_condition(function),
        )

    async def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        self._find(key)
        lines = self._lines.setdefault(key, [])
        seen = len(lines)
        chosen = [line for line in lines if _is_wanted(line, query)]
        for line in chosen[max(0, len(chosen) - query.tail) :] if query.tail >= 0 else chosen:
            yield line
        while query.follow and self._lines.get(key) is lines:
            for line in lines[seen:]:
                seen += 1
                if _is_wanted(line, query):
                    yield line
            async with self._printed:
                if seen == len(lines) and self._lines.get(key) is lines:
                    await self._printed.wait()

    async def restart(self, key: FunctionKey) -> None:
        function = self._find(key)
        function.instances.clear()
        self._settle(function)
        await self._report(key)

    async def print(self, key: FunctionKey, text: str, *, instance: str = "", call: str = "", at: str = "") -> None:
        """Let a function print a line, for tests; `at` is RFC 3339, and now when empty."""
        function = self._find(key)
        instance = instance or (function.instances or [f"{key.name}-0"])[0]
        line = LogLine(key.name, key.namespace, instance, at or now_rfc3339(), text, call)
        self._lines.setdefault(key, []).append(line)
        await self._tell_followers()

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        """Let a replica say that it cannot serve, for tests; with an empty reason it can again."""
        self._find(key).sick[instance] = reason
        await self._report(key)

    def break_image(self, image: str, message: str) -> None:
        """Let no replica of this image become ready any more, for tests; `message` is the reason reported."""
        self._broken[image] = message

    async def _create(self, spec: FunctionSpec, create: bool) -> int:
        if not create:
            raise NotFound(f"function {spec.service!r} does not exist in namespace {spec.key.namespace!r}: create it")
        now = now_rfc3339()
        function = _Function(spec, 1, spec.min_replicas, now, [Kept(1, now, spec)])
        self._functions[spec.key] = function
        self._settle(function)
        await self._report(spec.key)
        return function.revision

    async def _update(self, function: _Function, spec: FunctionSpec, rollback_to: int = 0) -> int:
        if spec == function.spec:
            return function.revision
        new = Kept(function.revision + 1, now_rfc3339(), spec, rollback_to=rollback_to)
        function.history = extended(function.history, new, failed=bool(function.failure), serving=function.serving)
        function.spec = spec
        function.revision = new.number
        function.replicas = max(function.replicas, spec.min_replicas)
        if spec.image not in self._broken:
            function.instances.clear()
        self._settle(function)
        await self._report(spec.key)
        return function.revision

    def _settle(self, function: _Function) -> None:
        """Bring the replicas in line with what is asked for; a broken image starts none, and stops none."""
        function.failure = self._broken.get(function.spec.image, "")
        if not function.failure:
            function.serving = function.revision
        del function.instances[function.replicas :]
        while not function.failure and len(function.instances) < function.replicas:
            function.born += 1
            function.instances.append(f"{function.spec.service}-{function.born}")

    async def _report(self, key: FunctionKey) -> None:
        if self._listener is not None:
            function = self._functions.get(key)
            await self._listener(key, self._route(function) if function else None)

    def _route(self, function: _Function) -> Route:
        spec = function.spec
        targets = [Target(instance, self._address(instance)) for instance in function.healthy]
        failure, annotations = "" if targets else function.failure, route_annotations(spec.annotations)
        return Route(
            str(spec.key),
            spec.timeout,
            spec.concurrency,
            targets,
            failure,
            annotations=annotations,
            created_at=function.created_at,
        )

    async def _tell_followers(self) -> None:
        async with self._printed:
            self._printed.notify_all()

    def _find(self, key: FunctionKey) -> _Function:
        function = self._functions.get(key)
        if function is None:
            raise NotFound(f"function {key.name!r} does not exist in namespace {key.namespace!r}: deploy it first")
        return function


def _condition(function: _Function) -> Condition:
    sick = [reason for instance in function.instances if (reason := function.sick.get(instance))]
    state = "failed" if function.failure else "unhealthy" if sick else "ready" if function.instances else "zero"
    return Condition(
        state,
        function.revision,
        serving=function.serving,
        message=function.failure or (f"{len(sick)} of {len(function.instances)} replicas unhealthy" if sick else ""),
        output=[function.failure] if function.failure else [],
        timeout=format_duration(function.spec.timeout),
        instances=[_instance(function, instance) for instance in function.instances],
    )


def _instance(function: _Function, id: str) -> Instance:
    reason = function.sick.get(id, "")
    return Instance(id, "unhealthy" if reason else "ready", started_at=function.created_at, message=reason)


def _is_wanted(line: LogLine, query: LogQuery) -> bool:
    if query.instance and line.instance != query.instance:
        return False
    return query.since is None or parse_rfc3339(line.timestamp) >= query.since
