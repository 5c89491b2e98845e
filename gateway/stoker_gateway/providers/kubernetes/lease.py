"""Which of several platforms does what must be done once: a Lease of the cluster, held by one at a time.

No clock is compared with another machine's. A holder counts from when it *sent* its last renewal that was taken, and
stops before the time is up that it wrote into the Lease; the others count from when they *saw* its last renewal, which
was later, and take over when all of that time is up. Every write names the version that it was decided on, so of two
that try, one is refused.

Nobody can stop a process between looking at `is_leader` and the write that follows. So what a leader writes must
itself be refused when it is late: by a resource version, or because it is the same whoever writes it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Event, Task, TimerHandle
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from stoker_gateway.providers.kubernetes import paths
from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.objects import Lease, Manifest
from stoker_sdk.errors import Conflict, NotFound, StokerError

log = logging.getLogger("stoker.kubernetes")


@dataclass(frozen=True)
class Times:
    """Seconds. `duration` is what others wait after a sign of life, `held` how long a holder relies on one of its own:
    the difference is for clocks that run at different speeds. A holder says `every` so often that it lives, the others
    look as often, and neither waits longer than `patience` for an answer.
    """

    duration: int = 12
    held: float = 8.0
    every: float = 2.0
    patience: float = 3.0


DEFAULTS: Final = Times()


class Candidate:
    """One process that would do it. `run` is a task of the caller's; what the leader does is given to `lead`."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str, times: Times = DEFAULTS) -> None:
        """`identity` is this process's alone: not even a process that is started in its place has the same."""
        self._api = api
        self._folder = paths.leases(namespace)
        self._path = f"{self._folder}/{name}"
        self._what = f"lease {name!r} in namespace {namespace!r}"
        self._metadata = {"name": name, "namespace": namespace}
        self._identity = identity
        self._times = times
        self._known: Lease | None = None
        self._seen_at = 0.0
        self._until = 0.0
        self._expiry: TimerHandle | None = None
        self._elected, self._deposed = Event(), Event()
        self._deposed.set()

    @property
    def is_leader(self) -> bool:
        return monotonic() < self._until

    async def run(self) -> None:
        """Be a candidate, until it is cancelled. Then call `release`, when what the leader did has ended."""
        complaint = ""
        while True:
            try:
                async with asyncio.timeout(self._times.patience):
                    await self._step()
                complaint = ""
            except (StokerError, TimeoutError) as error:
                before, complaint = complaint, str(error) or f"{self._what}: no answer in time"
                if complaint != before:
                    log.warning("%s; tried again until it works", complaint)
            except Exception:
                log.exception("%s: a step failed", self._what)
            await asyncio.sleep(self._times.every * random.uniform(0.8, 1.0))

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work whenever this process is the leader: it is begun then, and cancelled when that is over.

        Work that ends by itself is begun again when this process is elected anew. Runs until it is cancelled.
        """
        while True:
            await self._elected.wait()
            doing = asyncio.get_running_loop().create_task(work(), name=f"work of the leader by {self._what}")
            doing.add_done_callback(_log_failure)
            try:
                await self._deposed.wait()
            finally:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)

    async def release(self) -> None:
        """Let another take over at once."""
        known, was_leader = self._known, self.is_leader
        self._depose()
        if not was_leader or known is None:
            return
        try:
            async with asyncio.timeout(self._times.patience):
                await self._api.replace(self._path, self._manifest(known, holder=""), Lease, self._what)
        except (StokerError, TimeoutError) as error:
            log.info("%s is not given back, and others wait until it is over: %s", self._what, error)

    # Steps

    async def _step(self) -> None:
        """A leader says that it lives; anybody else looks, and takes what nobody holds."""
        if not self.is_leader:
            await self._look()
        if self._may_write() and not await self._write():
            await self._look()  # the object was changed, not always by one who has taken it
            if not self._may_write() or not await self._write():
                self._depose()

    def _may_write(self) -> bool:
        known = self._known
        return known is None or known.spec.holder_identity == self._identity or self._is_over(known)

    async def _look(self) -> None:
        try:
            found = await self._api.get(self._path, Lease, self._what)
        except NotFound:
            self._known = None
            return
        self._saw(found)

    def _saw(self, found: Lease) -> None:
        known = self._known
        if known is None or known.metadata.resource_version != found.metadata.resource_version:
            self._seen_at = monotonic()
        self._known = found

    def _is_over(self, known: Lease) -> bool:
        if not known.spec.holder_identity:
            return True
        duration = known.spec.lease_duration_seconds or self._times.duration
        return monotonic() - self._seen_at >= duration

    async def _write(self) -> bool:
        """Take it, or go on having it; false when it is not as it was known."""
        known, sent = self._known, monotonic()
        body = self._manifest(known, holder=self._identity)
        try:
            if known is None:
                written = await self._api.create(self._folder, body, Lease, self._what)
            else:
                written = await self._api.replace(self._path, body, Lease, self._what)
        except (Conflict, NotFound):
            return False
        self._saw(written)
        self._elect(sent + self._times.held)
        return True

    def _manifest(self, known: Lease | None, holder: str) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people who look at it
        before = known.spec if known else None
        stays = before is not None and holder in ("", before.holder_identity)
        spec: Manifest = {
            "leaseDurationSeconds": self._times.duration,
            "acquireTime": (before.acquire_time if before and stays else None) or now,
            "renewTime": now,
            "leaseTransitions": ((before.lease_transitions or 0) + (not stays)) if before else 0,
        }
        if holder:  # an empty one is refused
            spec["holderIdentity"] = holder
        version = {"resourceVersion": known.metadata.resource_version} if known else {}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._metadata | version,
            "spec": spec,
        }

    # Being the leader

    def _elect(self, until: float) -> None:
        self._until = until
        if self._expiry is not None:
            self._expiry.cancel()
        if not self.is_leader:  # the answer came too late
            self._depose()
            return
        self._expiry = asyncio.get_running_loop().call_later(until - monotonic(), self._depose)
        if not self._elected.is_set():
            log.info("%s: this platform (%s) is the leader", self._what, self._identity)
            self._deposed.clear()
            self._elected.set()

    def _depose(self) -> None:
        self._until = 0.0
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._elected.is_set():
            log.info("%s: this platform (%s) is the leader no more", self._what, self._identity)
            self._elected.clear()
            self._deposed.set()


def _log_failure(done: Task[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("%s failed", done.get_name(), exc_info=error)
