"""One function on this machine: keeps its replicas in line with what is wanted, one step after another.

`plan` decides, this acts. Steps run in one task that exists only while something is to be done, so a function that
rests costs a few kilobytes. A replica leaves the route table, and every proxy has acknowledged that, before it is asked
to drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Protocol

import msgspec

from stoker_gateway.providers.local.logfiles import LogFiles
from stoker_gateway.providers.local.plan import Replica, Version, next_delay, plan
from stoker_gateway.providers.local.records import Record
from stoker_gateway.providers.local.runner import Found, Runner
from stoker_gateway.providers.local.standing import Standing
from stoker_gateway.routes import Loss, Route, Target, route_annotations
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.faults import FIXES
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import now_rfc3339

log = logging.getLogger("stoker.local")

STABLE_SECONDS = 10.0
"""A replica that was ready for so long before it crashed is started again at once."""
SICK_SECONDS = 10.0
"""So long calls wait for unhealthy replicas to recover; then they are told the reason at once."""
_DRAIN_GRACE = 5.0
_OUTPUT_LINES = 20
_TIMER_SLACK = 0.01  # timers of uvloop may fire a millisecond early, and nobody would nudge again


class Host(Protocol):
    """What a function needs of its provider."""

    async def publish(self, key: FunctionKey, route: Route | None) -> None: ...

    def runner(self, version: Version) -> Runner:
        """What runs the replicas of this version."""

    def save_soon(self, record: Record) -> None: ...

    def held(self, function: LocalFunction) -> int:
        """The connections that replicas of a removed function of the same name may still hold."""

    def emptied(self, function: LocalFunction) -> None:
        """The function was removed, and its last replica has ended."""


class LocalFunction:
    """A stored function, its versions, and its replicas."""

    def __init__(self, host: Host, record: Record, wanted: Version, serving: Version | None, logs: Path) -> None:
        self._host = host
        self._logs = LogFiles(logs, record.key)
        self._log_folder = logs
        self._wanted = wanted
        self._serving = serving
        self._replicas: dict[str, Replica] = {}
        self._published: Route | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._trouble = ""
        self._trouble_code = ""
        self._losses: list[Loss] = []
        self._sick_since = 0.0
        self._broken = False
        self._removed = False
        self._prepared: Version | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self.record = record
        self.key = record.key
        self.restarts = 0

    def __repr__(self) -> str:
        states = [replica.state for replica in self._replicas.values()]
        return f"<LocalFunction {self.key} revision={self._wanted.revision} {states}>"

    # What is wanted

    def roll_out(self, record: Record, version: Version) -> None:
        """A new version is wanted. It replaces the old one when it is ready, and leaves it alone when it fails."""
        self.record = record
        self._wanted = version
        self._broken = False
        self._clear_trouble()
        self.nudge()

    def cannot_run(self, why: str) -> None:
        """What its replicas are made of is gone: nothing starts until it is deployed anew."""
        self.record = msgspec.structs.replace(self.record, failure=why, failure_code="cannot-start", output=[])
        self._broken = True

    def restart(self) -> None:
        """Replace every replica by a new one of the same revision."""
        old = self._wanted
        self.roll_out(self.record, replace(old))

    def scale(self, replicas: int) -> None:
        self.record = msgspec.structs.replace(self.record, replicas=replicas)
        self._host.save_soon(self.record)
        self._clear_trouble()
        self.nudge()

    def wake(self) -> None:
        if self.record.replicas == 0:
            self.scale(self._wanted.spec.min_replicas)
        else:
            self.nudge()

    def remove(self) -> None:
        self._removed = True
        self.nudge()

    @property
    def spec(self) -> FunctionSpec:
        return self._wanted.spec

    @property
    def _count(self) -> int:
        return 0 if self._removed or self._broken else self.record.replicas

    def _clear_trouble(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._trouble = ""
        self._sick_since = 0.0

    # Steps

    def nudge(self) -> None:
        """Something has changed: take the next step."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=f"function {self.key}")
        else:
            self._again = True

    async def _work(self) -> None:
        try:
            while True:
                self._again = False
                await self._step()
                if not self._again:
                    return
        except Exception:
            log.exception("%s: a step failed", self.key)
        finally:
            self._task = None

    async def _step(self) -> None:
        step = plan(self._wanted, self._count, list(self._replicas.values()), self._host.held(self))
        if step.start and self._may_start():
            self._start(step.start)
        for replica in step.drain:
            replica.state = "draining"
        await self._publish()
        for replica in step.drain:
            self._drain(replica)
        if step.settled and not self._removed and not self._broken:
            self._proven()
        if self._removed and not self._replicas:
            self._host.emptied(self)

    @property
    def _runner(self) -> Runner:
        return self._host.runner(self._wanted)

    def _may_start(self) -> bool:
        return self._runner.is_up and monotonic() >= self._retry_at - _TIMER_SLACK

    def _proven(self) -> None:
        """The wanted version is there in full: from now on it is what serves."""
        if self._serving is self._wanted or self._count == 0:
            return
        if self._serving is not None:
            self._host.runner(self._serving).forget(self.key, self._serving.revision)
        self._serving = self._wanted
        if self.record.revision == self._wanted.revision:
            self.record = msgspec.structs.replace(
                self.record,
                serving=self._wanted.revision,
                serving_spec=None,
                failure="",
                failure_code="",
                output=[],
            )
            self._host.save_soon(self.record)

    async def _publish(self) -> None:
        route = None if self._removed else self.route()
        if route != self._published or self._losses or self._removed:
            self._published = route
            losses, self._losses = self._losses, []
            await self._host.publish(self.key, route and msgspec.structs.replace(route, losses=losses))

    def route(self) -> Route:
        """What proxies must know of this function now."""
        spec = self._wanted.spec
        targets = [
            Target(replica.id, replica.address) for replica in self._replicas.values() if replica.state == "ready"
        ]
        if targets:
            failure = code = ""
        elif self._broken:
            failure, code = self.record.failure, self.record.failure_code
        elif self._trouble:
            failure, code = self._trouble, self._trouble_code
        elif away := self._runner.away:
            failure, code = away, "cannot-start"
        else:
            failure, code = self._sickness(), "unhealthy"
        code = code if failure else ""
        annotations = route_annotations(spec.annotations)
        ready = [replica.version.revision for replica in self._replicas.values() if replica.state == "ready"]
        return Route(
            str(self.key),
            spec.timeout,
            spec.concurrency,
            targets,
            failure,
            code,
            annotations=annotations,
            created_at=self.record.created_at,
            revision=max(ready, default=0),
        )

    # Replicas

    def _start(self, number: int) -> None:
        try:
            for _ in range(number):
                self._launch()
        except NotFound as error:  # a secret was removed after the function was deployed
            self._cannot_launch(str(error), "secret-missing")
        except (StokerError, OSError) as error:
            self._cannot_launch(str(error), "cannot-start")

    def _cannot_launch(self, why: str, code: str) -> None:
        """What a replica needs is not there: a new version has failed, an old one is tried again later."""
        log.warning("%s: no replica can be started: %s", self.key, why)
        if self._is_proven(self._wanted):
            self._failures = max(self._failures, 1)  # not at once: nothing has changed since
            self._back_off(why, code)
        else:
            self._fail_rollout(why, code, [])

    def _launch(self) -> None:
        version, runner = self._wanted, self._runner
        id = f"{self.key.name}-{version.revision}-{os.urandom(3).hex()}"
        if self._prepared is not version or version.spec.secrets:  # a secret may have been removed since
            runner.prepare(version.spec)
            self._prepared = version
            self._logs.prune(set(self._replicas))
        replica = Replica(id, version, "", monotonic(), now_rfc3339(), share=version.spec.connection_share)
        runner.launch(replica, self)
        self._replicas[id] = replica

    def begun(self, replica: Replica) -> None:
        """Its start has begun: from now on it may take so long."""
        asyncio.get_running_loop().call_later(replica.version.spec.start_timeout, self._too_late, replica.id)

    def _too_late(self, id: str) -> None:
        replica = self._replicas.get(id)
        if replica is None:
            return
        limit = f"within {replica.version.spec.start_timeout:g} s (start_timeout)"
        if replica.state == "starting":
            self._start_failed(replica, f"it was not ready {limit}", "start-timeout")
            self._kill(replica)
        elif replica.state == "unhealthy" and not replica.was_ready and not self._is_proven(replica.version):
            self._start_failed(replica, f"it was not healthy {limit}: {replica.trouble}", "unhealthy")
            self._kill(replica)

    def _is_proven(self, version: Version) -> bool:
        return self._serving is not None and self._serving.revision == version.revision

    def _drain(self, replica: Replica) -> None:
        self._host.runner(replica.version).end(replica.id, signal.SIGTERM)
        self._kill_later(replica)

    def _kill_later(self, replica: Replica) -> None:
        seconds = replica.version.spec.timeout + _DRAIN_GRACE
        asyncio.get_running_loop().call_later(seconds, self._kill, replica)

    def _kill(self, replica: Replica) -> None:
        if replica.id in self._replicas:
            replica.state = "draining"
            self._host.runner(replica.version).end(replica.id, signal.SIGKILL)

    def adopt(self, found: Found, runner: Runner) -> None:
        """Take over a replica that an earlier control process had started; one that is of no use leaves."""
        known = [one for one in (self._wanted, self._serving) if one and _made(found, one)]
        version = known[0] if known else replace(self._wanted, image=found.image)
        replica = Replica(found.id, version, found.address, monotonic(), now_rfc3339(), pid=found.pid)
        replica.share = found.connections
        replica.limits = runner.describe(version.spec)
        self._replicas[found.id] = replica
        if found.stopping:
            replica.state = "draining"
            self._kill_later(replica)  # some programs take a second SIGTERM for impatience
        elif not known:
            replica.state = "draining"
            self._drain(replica)
        elif found.ready:
            self._set_health(replica, found.health)
        self.begun(replica)
        log.info("%s: took over %s, which is %s", self.key, found.id, replica.state)

    # What its runners tell

    def progress(self, id: str, text: str) -> None:
        """What a replica waits for before it can begin."""
        replica = self._replicas.get(id)
        if replica is not None and replica.state == "starting":
            replica.trouble = text

    def started(self, id: str, pid: int, address: str = "") -> None:
        replica = self._replicas.get(id)
        if replica is not None:
            replica.pid, replica.trouble = pid, ""
            replica.address = address or replica.address

    def ready(self, id: str, health: str) -> None:
        replica = self._replicas.get(id)
        if replica is not None and replica.state == "starting":
            self._set_health(replica, health)
            self.nudge()

    def health(self, id: str, reason: str) -> None:
        """A replica that was ready says why it cannot serve for now, or, by an empty reason, that it can again."""
        replica = self._replicas.get(id)
        if replica is not None and replica.state in ("ready", "unhealthy"):
            self._set_health(replica, reason)
            self.nudge()

    def _set_health(self, replica: Replica, reason: str) -> None:
        replica.trouble = reason
        now, before = monotonic(), replica.state
        if not reason and before != "ready":
            replica.state, replica.since, replica.was_ready = "ready", now, True
            self._trouble = ""
            self._sick_since = 0.0
        elif reason and before != "unhealthy":
            log.warning("%s: %s is unhealthy: %s", self.key, replica.id, reason)
            if before == "ready" and now - replica.since > STABLE_SECONDS:
                self._failures = 0
            replica.state, replica.since = "unhealthy", now
            self._watch_sick(replica, now)

    def _watch_sick(self, replica: Replica, now: float) -> None:
        loop, limit = asyncio.get_running_loop(), replica.version.spec.probes.replace_after
        if limit:
            loop.call_later(limit, self._replace_sick, replica, now)
        if not self._sick_since:
            self._sick_since = now
            loop.call_later(SICK_SECONDS + _TIMER_SLACK, self.nudge)

    def _replace_sick(self, replica: Replica, since: float) -> None:
        """It has been unhealthy all the time: another process may do better."""
        if self._replicas.get(replica.id) is not replica or (replica.state, replica.since) != ("unhealthy", since):
            return
        self.restarts += 1
        log.warning("%s: %s stays unhealthy and is replaced", self.key, replica.id)
        replica.state = "draining"
        self._drain(replica)
        if monotonic() >= self._retry_at:  # of many that go at once, one counts
            self._back_off(f"its replicas stay unhealthy: {replica.trouble}", "unhealthy")
        self.nudge()

    def _sickness(self) -> str:
        """Why calls need not wait for replicas that are unhealthy; empty while they may."""
        sick = next((replica for replica in self._replicas.values() if replica.state == "unhealthy"), None)
        if sick is None or not self._sick_since or monotonic() < self._sick_since + SICK_SECONDS:
            return ""
        return f"its replicas are unhealthy: {sick.trouble}; mend what `health` checks, and they serve again"

    def exited(self, id: str, how: str, failure: str, code: str = "") -> None:
        """A replica has ended: `how`, and what it said of itself before (a function's words, and its code)."""
        replica = self._replicas.pop(id, None)
        if replica is None:
            return
        if code == "out-of-memory" and not failure:
            limit = replica.version.spec.limits.memory if replica.version.spec.limits else ""
            failure = f"it ran out of memory: raise limits.memory (now {limit}), or use less"
        if replica.state == "starting":
            code = code if code in FIXES else "cannot-start"
            self._start_failed(replica, failure or f"it ended before it was ready ({how})", code)
        elif replica.state == "unhealthy" and not replica.was_ready:
            self._start_failed(replica, f"it ended before it was healthy ({failure or how})", "cannot-start")
        elif replica.state in ("ready", "unhealthy"):
            self._crashed(replica, failure or how, failure if code == "out-of-memory" else "")
        self.nudge()

    def lost(self, id: str) -> None:
        """What ran this replica has ended, and took it along."""
        if self._replicas.pop(id, None) is not None:
            self.nudge()

    def _start_failed(self, replica: Replica, why: str, code: str) -> None:
        if replica.version is not self._wanted:
            return
        log.warning("%s: %s failed: %s", self.key, replica.id, why)
        if self._is_proven(self._wanted):
            self._back_off(why, code)
        else:
            self._fail_rollout(why, code, self._logs.last_lines(replica.id, _OUTPUT_LINES))

    def _crashed(self, replica: Replica, how: str, out_of_memory: str) -> None:
        self.restarts += 1
        log.warning("%s: %s ended unasked (%s)", self.key, replica.id, out_of_memory or how)
        code = "out-of-memory" if out_of_memory else "crashed"
        reason = out_of_memory or f"the process that ran the call ended ({how}): `stoker logs` has what it printed last"
        self._losses.append(Loss(replica.id, code, reason))
        if replica.state == "ready" and monotonic() - replica.since > STABLE_SECONDS:
            self._failures = 0
        self._back_off(out_of_memory or f"its replicas keep ending ({how})", code)

    def _back_off(self, why: str, code: str) -> None:
        self._failures += 1
        delay = next_delay(self._failures)
        if delay:
            self._trouble, self._trouble_code = why, code
            self._retry_at = monotonic() + delay
            asyncio.get_running_loop().call_later(delay, self.nudge)

    def _fail_rollout(self, why: str, code: str, output: list[str]) -> None:
        """The new version cannot start: say so, and go back to the one that served, if there is one."""
        if self._serving is not None:
            self._runner.forget(self.key, self._wanted.revision)
            self.record = msgspec.structs.replace(
                self.record, failure=why, failure_code=code, output=output, serving_spec=self._serving.spec
            )
            self._wanted = self._serving
        else:
            self.record = msgspec.structs.replace(self.record, failure=why, failure_code=code, output=output)
            self._broken = True
        self._host.save_soon(self.record)
        self.nudge()

    # What can be asked

    def status(self) -> FunctionStatus:
        replicas = list(self._replicas.values())
        trouble, code = self._trouble, self._trouble_code
        if not trouble and (away := self._runner.away):
            trouble, code = away, "cannot-start"
        return Standing(self.record, self._wanted, self._serving, replicas, trouble, code, self.restarts).status()

    @property
    def held(self) -> int:
        """The connections that its replicas may have open."""
        return sum(replica.share for replica in self._replicas.values())

    @property
    def log_folder(self) -> Path:
        return self._log_folder

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _made(found: Found, version: Version) -> bool:
    """Whether this replica is of this version."""
    return (found.revision, found.image) == (version.revision, version.image)
