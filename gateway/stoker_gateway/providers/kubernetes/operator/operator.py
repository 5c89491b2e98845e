"""The operator: works on the resources whose function is not as they say, and writes their status.

It may run in several platforms at once, which costs requests and spoils nothing; a leader is enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic

from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.drift import named
from stoker_gateway.providers.kubernetes.events import Events, Happening
from stoker_gateway.providers.kubernetes.manifests import SELECTOR
from stoker_gateway.providers.kubernetes.objects import Function, List, Manifest, Service
from stoker_gateway.providers.kubernetes.operator.functions import Functions
from stoker_gateway.providers.kubernetes.operator.reconciler import Reconciler
from stoker_gateway.providers.kubernetes.operator.set_backs import SetBacks
from stoker_gateway.providers.kubernetes.operator.status import differs, reason_of, set_back_before, status_of
from stoker_gateway.providers.kubernetes.operator.work_queue import WorkQueue
from stoker_gateway.providers.kubernetes.releases import Releases
from stoker_gateway.providers.kubernetes.view import View
from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import Conflict, NotFound, StokerError
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.kubernetes")

_WORKERS = 4
RESYNC_SECONDS = 300.0
"""How often everything is looked at, in case that something was missed."""


class Operator:
    """`note` and `note_resource` tell it what to look at; it does so while `run` runs."""

    def __init__(
        self,
        api: Api,
        functions: Functions,
        view: View,
        releases: Releases,
        reconciler: Reconciler,
        locks: Mapping[FunctionKey, asyncio.Lock],
        events: Events,
    ) -> None:
        self._api = api
        self._functions = functions
        self._view = view
        self._releases = releases
        self._reconciler = reconciler
        self._locks = locks
        self._events = events
        self._queue: WorkQueue[FunctionKey] = WorkQueue()
        self._set_backs: SetBacks[FunctionKey] = SetBacks()
        self._waiting: set[FunctionKey] = set()
        self._news = asyncio.Event()
        self._runs = False

    def note(self, key: FunctionKey) -> None:
        """Something that was made for the resource has changed."""
        if self._runs and self._functions.get(key) is not None:
            self._queue.add(key, monotonic())
            self._news.set()

    def note_resource(self, key: FunctionKey) -> None:
        """The resource itself has changed."""
        if self._runs:
            self._queue.add_changed(key, monotonic())
            self._news.set()

    async def run(self) -> None:
        """Until it is cancelled; it begins with a look at everything."""
        self._queue = WorkQueue()
        self._runs = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._resync(), name="resync functions")
                for number in range(_WORKERS):
                    tasks.create_task(self._work(), name=f"operator {number}")
        finally:
            self._runs = False

    async def resync(self) -> None:
        """Look at everything once more. Where all is as it should be, the only requests are lists of Services."""
        for key in self._functions.all_keys():
            self.note(key)
        there: dict[FunctionKey, Service] = {}
        for namespace in self._functions.namespaces:
            found = await self._api.get(
                paths.services(namespace), List[Service], f"services of {namespace!r}", {"labelSelector": SELECTOR}
            )
            there |= {FunctionKey(namespace, one.metadata.name): one for one in found.items}
        for key in self._functions.all_keys():
            try:
                await self._look_at_service(key, there.get(key))
            except StokerError as error:
                log.warning("%s: %s; looked for again in %g s", key, error, RESYNC_SECONDS)

    async def _look_at_service(self, key: FunctionKey, found: Service | None) -> None:
        """Make it, or undo what others have changed in it."""
        async with self._locks[key]:
            function, stored = self._functions.get(key), self._view.get(key)
            if function is None or stored is None or stored.owner != self._reconciler.owner(function):
                return
            if found is None:
                await self._releases.ensure_service(stored.spec, stored.owner)
            elif fields := await self._reconciler.set_service_right(stored, found):
                log.warning("%s: set back what was changed in the Service: %s", key, named(fields))

    async def _resync(self) -> None:
        while True:
            try:
                await self.resync()
            except StokerError as error:
                log.warning("%s; looked for again in %g s", error, RESYNC_SECONDS)
            except Exception:
                log.exception("a resync failed")
            await asyncio.sleep(RESYNC_SECONDS)

    async def _work(self) -> None:
        while True:
            key = await self._next()
            try:
                await self._handle(key)
            except NotFound:
                self._queue.done(key, monotonic())  # it has gone meanwhile
            except StokerError as error:
                log.warning("%s: %s", key, error)
                self._queue.failed(key, monotonic())
            except Exception:
                log.exception("%s: the operator failed", key)
                self._queue.failed(key, monotonic())
            else:
                self._queue.done(key, monotonic())

    async def _next(self) -> FunctionKey:
        while (key := self._queue.take(monotonic())) is None:
            self._news.clear()
            due = self._queue.next_time()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - monotonic())):
                    await self._news.wait()
            except TimeoutError:
                pass
        return key

    async def _handle(self, key: FunctionKey) -> None:
        """Do what the resource asks for, and undo what others have changed in what was made for it."""
        async with self._locks[key]:
            function = self._functions.get(key)
            if function is None or function.metadata.deletion_timestamp:
                return
            fields: tuple[str, ...] = ()
            try:
                if not self._reconciler.is_settled(function):
                    await self._reconciler.reconcile(key)
                if not self._waits(key):
                    fields = await self._reconciler.set_right(function)
            except NotFound:
                raise
            except StokerError as error:
                if type(error) is not Conflict:  # that others were quicker is in nobody's way: it is tried again
                    await self._tell(key, error)
                raise
            if fields:
                self._set_backs.add(key, monotonic())
            await self._tell(key, None, len(fields))
            if fields and (stored := self._view.get(key)):
                text = f"set back what was changed in the Deployment: {named(fields)}"
                log.warning("%s: %s", key, text)
                happening = Happening("SetBack", text, str(stored.generation), warns=False)
                self._events.tell(key, self._reconciler.owner(function), happening)

    def _waits(self, key: FunctionKey) -> bool:
        """Whether it was set back just now: it is looked at again when the pause is over."""
        wait = self._set_backs.wait(key, monotonic())
        if wait and key not in self._waiting:
            self._waiting.add(key)
            asyncio.get_running_loop().call_later(wait, self._has_waited, key)
        return wait > 0

    def _has_waited(self, key: FunctionKey) -> None:
        self._waiting.discard(key)
        self.note(key)

    async def _tell(self, key: FunctionKey, error: StokerError | None, set_back: int = 0) -> None:
        """Write the status, where it differs, and what is in the way as an event too."""
        function = self._functions.get(key)
        if function is None:
            return
        status = self._status(key, function, error)
        if set_back:
            status["setBack"] = set_back_before(function) + 1
        if not differs(function, status):
            return
        try:
            await self._functions.write_status(function, status)
        except Conflict:
            self.note(key)  # it was changed since, and is looked at again
        if error is not None:
            happening = Happening(reason_of(error), one_line(str(error)), f"{function.metadata.generation} {error}")
            self._events.tell(key, self._reconciler.owner(function), happening)

    def _status(self, key: FunctionKey, function: Function, error: StokerError | None) -> Manifest:
        stored = self._view.get(key)
        ours = stored is not None and stored.owner == self._reconciler.owner(function)
        standing = self._view.standing(key) if ours else None
        return status_of(function, standing, error, now_rfc3339())
