"""The provider of one machine: functions from disk, one `LocalFunction` each, replicas as processes or as containers.

Which of the two is said by the image of each revision. There is one list of functions and one history, and an update
from the one kind to the other is an update like any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

import msgspec

from stoker_gateway.providers.base import LogLine, LogQuery, RouteListener
from stoker_gateway.providers.local.artefacts import Artefact, artefact_of, is_container, program_of
from stoker_gateway.providers.local.collector import Collector, mark_used
from stoker_gateway.providers.local.function import LocalFunction
from stoker_gateway.providers.local.launch import Launcher, RunDir
from stoker_gateway.providers.local.limiter import Limiter
from stoker_gateway.providers.local.logfiles import Follower, LogFiles
from stoker_gateway.providers.local.plan import Version
from stoker_gateway.providers.local.processes import Processes
from stoker_gateway.providers.local.records import Record, Records
from stoker_gateway.providers.local.runner import ContainerRunner, ContainerRunners, Owner, Runner
from stoker_gateway.revisions import Kept, extended, find
from stoker_gateway.routes import Route
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.local")

MAX_REPLICAS = 1000
"""More is taken for a slip of the finger."""
_LOG_BATCH = 500
_FOLLOW_SECONDS = 0.1


class LocalProvider:
    """Implements `Provider`. Functions outlive this process: the fork server keeps their replicas."""

    name = "local"
    is_leader = True

    def __init__(
        self,
        data: DataDir,
        run: RunDir,
        launcher: Launcher,
        limiter: Limiter,
        make_containers: ContainerRunners,
        *,
        host_programs: bool = False,
    ) -> None:
        self._launcher = launcher
        self._processes = Processes(data, run, launcher, limiter, self)
        self._containers: ContainerRunner | None = None
        self._make_containers = make_containers
        self._data = data
        self._host_programs = host_programs
        self._records = Records(data.functions, data.set_aside)
        self._functions: dict[FunctionKey, LocalFunction] = {}
        self._leaving: set[LocalFunction] = set()
        self._listener: RouteListener | None = None
        self._dirty: dict[FunctionKey, Record] = {}
        self._saving: asyncio.Task[None] | None = None
        self._locks: dict[FunctionKey, asyncio.Lock] = {}
        self._collector = Collector(data, self._used_artefacts, self._collect_images)
        self._collecting: asyncio.Task[None] | None = None

    async def start(self, listener: RouteListener) -> None:
        self._listener = listener
        for record in self._records.load():
            self._take_up(record)
        for function in self._functions.values():
            await listener(function.key, function.route())
        await self._processes.open()
        await self._open_containers()
        for function in self._functions.values():
            function.nudge()
        self._collecting = asyncio.get_running_loop().create_task(self._collector.run(), name="collect artefacts")

    async def _open_containers(self) -> None:
        """Where there may be any: else no Engine is looked for."""
        if self._containers is None and not self._data.containers.exists():
            return
        runner = self._container_runner()
        try:
            await runner.open()
        except StokerError as error:
            log.error("containers cannot run yet: %s", error)
            runner.open_in_time()

    def _container_runner(self) -> ContainerRunner:
        if self._containers is None:
            self._containers = self._make_containers(self)
        return self._containers

    def _take_up(self, record: Record) -> None:
        folder = self._data.function_logs(record.key)
        try:
            record, wanted, serving = self._versions(record)
        except StokerError as error:
            log.error("%s cannot run: %s", record.key, error)
            function = LocalFunction(self, record, _lost(record), None, folder)
            function.cannot_run(str(error))
        else:
            function = LocalFunction(self, record, wanted, serving, folder)
        self._functions[record.key] = function

    def _versions(self, record: Record) -> tuple[Record, Version, Version | None]:
        """What a stored function wants and what serves, as far as its artefacts are still there."""
        try:
            wanted = self._version(record.spec, record.revision, _image_of(record, record.revision))
            serving = self._serving_version(record, wanted)
        except StokerError as error:
            before = record.serving_spec
            if before is None:
                raise
            log.error("%s: revision %d cannot run: %s", record.key, record.revision, error)
            record = msgspec.structs.replace(record, failure=str(error), failure_code="cannot-start", output=[])
            wanted = serving = self._version(before, record.serving, _image_of(record, record.serving))
        if record.failure and serving is not None:
            wanted = serving
        elif record.failure:  # a restart is a reason to try again
            record = msgspec.structs.replace(record, failure="", failure_code="", output=[])
        return record, wanted, serving

    def _serving_version(self, record: Record, wanted: Version) -> Version | None:
        if record.serving == record.revision:
            return wanted
        if record.serving_spec is not None:
            return self._version(record.serving_spec, record.serving, _image_of(record, record.serving))
        return None

    def _version(self, spec: FunctionSpec, revision: int, image: str) -> Version:
        """`image` is what that of a container meant when it was deployed. Raises `BadInput`."""
        if image:
            return Version(revision, spec, "", Artefact(spec.service), image)
        if is_container(spec, self._host_programs):
            raise BadInput(
                f"its program {program_of(spec)[:100]!r} may not be started on this machine any more: the operator has "
                "to allow it with `stoker serve --allow-host-programs`; or deploy it again, as a container"
            )
        digest, artefact = artefact_of(self._data, spec)
        if digest:
            mark_used(self._data.artefact(digest))
        return Version(revision, spec, digest, artefact)

    async def _pinned(self, spec: FunctionSpec) -> str:
        """The image of a container as it is now; empty for what runs as processes. Raises `StokerError`."""
        if not is_container(spec, self._host_programs):
            return ""
        try:
            return await self._container_runner().pin(spec)
        except StokerError as error:
            if not program_of(spec) or self._host_programs:
                raise
            hint = "or have the operator allow its program without a container: `stoker serve --allow-host-programs`"
            raise type(error)(f"{error}; {hint}") from None

    def _used_artefacts(self) -> set[str]:
        """Of all that runs or may run again by a rollback."""
        records = [function.record for function in [*self._functions.values(), *self._leaving]]
        specs = [kept.spec for record in records for kept in record.revisions]
        specs += [record.serving_spec for record in records if record.serving_spec is not None]
        return {digest for spec in specs if (digest := spec.image.rpartition("sha256:")[2])}

    async def _collect_images(self, keep: float) -> None:
        """The same of containers' images."""
        if self._containers is not None:
            records = [function.record for function in [*self._functions.values(), *self._leaving]]
            used = {kept.image for record in records for kept in record.revisions}
            await self._containers.collect(used, keep)

    async def close(self) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
        for function in [*self._functions.values(), *self._leaving]:
            function.close()
        await self._processes.close()
        if self._containers is not None:
            await self._containers.close()
        if self._saving is not None:
            await self._saving

    # The verbs

    async def deploy(self, spec: FunctionSpec, *, create: bool) -> int:
        async with self._locks.setdefault(spec.key, asyncio.Lock()):
            function = self._functions.get(spec.key)
            if function is None:
                return await self._create(spec, create)
            if create:
                raise Conflict(f"function {spec.service!r} exists already: update it, or remove it first")
            return await self._update(function, spec, await self._pinned(spec))

    async def _create(self, spec: FunctionSpec, create: bool) -> int:
        if not create:
            raise NotFound(f"function {spec.service!r} is not deployed in namespace {spec.key.namespace!r}")
        image, now = await self._pinned(spec), now_rfc3339()
        version = self._version(spec, 1, image)
        record = Record(spec, 1, now, spec.min_replicas, history=[Kept(1, now, spec, image)])
        await asyncio.to_thread(self._records.save, record)
        function = LocalFunction(self, record, version, None, self._data.function_logs(spec.key))
        self._functions[spec.key] = function
        function.nudge()
        return 1

    async def _update(self, function: LocalFunction, spec: FunctionSpec, image: str, rollback_to: int = 0) -> int:
        old = function.record
        if (spec, image) == (old.spec, _image_of(old, old.revision)) and not old.failure:
            return old.revision
        version = self._version(spec, old.revision + 1, image)
        new = Kept(version.revision, now_rfc3339(), spec, image, rollback_to=rollback_to)
        replicas = old.replicas and min(max(old.replicas, spec.min_replicas), spec.max_replicas)
        record = msgspec.structs.replace(
            old,
            spec=spec,
            revision=version.revision,
            replicas=replicas,
            serving_spec=old.spec if old.serving == old.revision else old.serving_spec,
            failure="",
            failure_code="",
            output=[],
            history=extended(old.revisions, new, failed=bool(old.failure), serving=old.serving),
        )
        await asyncio.to_thread(self._records.save, record)
        self._dirty.pop(spec.key, None)
        function.roll_out(record, version)
        return version.revision

    def revisions(self, key: FunctionKey) -> list[Kept]:
        return list(self._find(key).record.revisions)

    async def rollback(self, key: FunctionKey, number: int) -> int:
        async with self._locks.setdefault(key, asyncio.Lock()):
            function = self._find(key)
            kept = find(key, function.record.revisions, number)
            return await self._update(function, kept.spec, kept.image, rollback_to=number)

    async def remove(self, key: FunctionKey) -> None:
        async with self._locks.setdefault(key, asyncio.Lock()):
            function = self._find(key)
            self._dirty.pop(key, None)
            await asyncio.to_thread(self._records.delete, key)
            del self._functions[key]
            self._leaving.add(function)
            function.remove()
        self._locks.pop(key, None)

    async def scale(self, key: FunctionKey, replicas: int) -> None:
        function = self._find(key)
        if not 0 <= replicas <= MAX_REPLICAS:
            raise BadInput(f"{replicas} replicas are not possible: ask for 0 to {MAX_REPLICAS}")
        function.scale(min(replicas, function.record.spec.max_replicas))

    async def wake(self, key: FunctionKey) -> None:
        function = self._functions.get(key)
        if function is not None:
            function.wake()

    async def restart(self, key: FunctionKey) -> None:
        self._find(key).restart()

    def list(self, namespace: str) -> list[FunctionStatus]:
        keys = sorted(key for key in self._functions if key.namespace == namespace)
        return [self._functions[key].status() for key in keys]

    def get(self, key: FunctionKey) -> FunctionStatus:
        return self._find(key).status()

    def route(self, key: FunctionKey) -> Route:
        """What the proxies were told of the function, or will be."""
        return self._find(key).route()

    async def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        folder = self._find(key).log_folder
        follower = await asyncio.to_thread(Follower, folder, key, query.instance) if query.follow else None
        existing = await asyncio.to_thread(LogFiles(folder, key).read, query)
        async for line in _in_batches(existing):
            yield line
        while follower is not None and key in self._functions:
            async for line in _in_batches(follower.new_lines()):
                yield line
            await asyncio.sleep(_FOLLOW_SECONDS)

    def _find(self, key: FunctionKey) -> LocalFunction:
        function = self._functions.get(key)
        if function is None:
            raise NotFound(f"function {key.name!r} is not deployed in namespace {key.namespace!r}")
        return function

    # For the runners

    def owner(self, key: FunctionKey) -> Owner | None:
        return self._functions.get(key)

    def owners(self) -> Iterable[Owner]:
        return [*self._functions.values(), *self._leaving]

    # For the functions

    async def publish(self, key: FunctionKey, route: Route | None) -> None:
        if self._listener is not None and not (route is None and key in self._functions):
            await self._listener(key, route)

    def runner(self, version: Version) -> Runner:
        return self._container_runner() if version.image else self._processes

    def save_soon(self, record: Record) -> None:
        """Store a record without making anybody wait; what a kill loses is only how many replicas had been woken."""
        self._dirty[record.key] = record
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save(), name="save records")

    async def _save(self) -> None:
        try:
            while self._dirty:
                key, record = self._dirty.popitem()
                if key in self._functions:
                    await asyncio.to_thread(self._records.save, record)
        finally:
            self._saving = None

    def held(self, function: LocalFunction) -> int:
        return sum(one.held for one in self._leaving if one.key == function.key and one is not function)

    def emptied(self, function: LocalFunction) -> None:
        self._leaving.discard(function)
        successor = self._functions.get(function.key)
        if successor is None:
            self._launcher.forget(function.key)
        else:
            successor.nudge()  # it may wait for the connections


def _image_of(record: Record, revision: int) -> str:
    """What the image of this revision meant; empty where it runs as processes."""
    return next((kept.image for kept in record.revisions if kept.number == revision), "")


def _lost(record: Record) -> Version:
    """Stands for a revision whose artefact is gone: it is listed, and starts nothing."""
    return Version(record.revision, record.spec, "", Artefact(record.spec.service))


async def _in_batches(lines: Iterator[LogLine]) -> AsyncIterator[LogLine]:
    """Read files in a thread, some hundred lines at a time."""
    while batch := await asyncio.to_thread(lambda: list(islice(lines, _LOG_BATCH))):
        for line in batch:
            yield line
