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
from pathlib import Path
from time import monotonic
from typing import Protocol

import msgspec

from stoker_gateway.providers.local.forklink import ForkLink, RunningReplica
from stoker_gateway.providers.local.launch import Launched, Launcher, limits_of
from stoker_gateway.providers.local.limiter import Limiter
from stoker_gateway.providers.local.logfiles import LogFiles
from stoker_gateway.providers.local.plan import Replica, Version, next_delay, plan
from stoker_gateway.providers.local.records import Record
from stoker_gateway.routes import Loss, Route, Target
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.faults import FIXES
from stoker_sdk.function import Condition, FunctionStatus, Instance
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import format_duration, now_rfc3339

log = logging.getLogger("stoker.local")

START_SECONDS = 60.0
"""A replica that is not ready by then is taken for one that never will be."""
STABLE_SECONDS = 10.0
"""A replica that was ready for so long before it crashed is started again at once."""
_DRAIN_GRACE = 5.0
_OUTPUT_LINES = 20
_TIMER_SLACK = 0.01  # timers of uvloop may fire a millisecond early, and nobody would nudge again


class Host(Protocol):
    """What a function needs of its provider."""

    link: ForkLink
    launcher: Launcher
    limiter: Limiter

    async def publish(self, key: FunctionKey, route: Route | None) -> None: ...

    def launched(self, id: str, function: LocalFunction) -> None: ...

    def save_soon(self, record: Record) -> None: ...

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

    def restart(self) -> None:
        """Replace every replica by a new one of the same revision."""
        old = self._wanted
        self.roll_out(self.record, Version(old.revision, old.spec, old.digest, old.artefact))

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
    def _count(self) -> int:
        return 0 if self._removed or self._broken else self.record.replicas

    def _clear_trouble(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._trouble = ""

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
        step = plan(self._wanted, self._count, list(self._replicas.values()))
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

    def _may_start(self) -> bool:
        return self._host.link.connected.is_set() and monotonic() >= self._retry_at - _TIMER_SLACK

    def _proven(self) -> None:
        """The wanted version is there in full: from now on it is what serves."""
        if self._serving is self._wanted or self._count == 0:
            return
        if self._serving is not None:
            self._host.link.forget(_zygote_key(self.key, self._serving))
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
        else:
            failure, code = self._trouble, self._trouble_code
        return Route(str(self.key), spec.timeout, spec.concurrency, targets, failure, code)

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
        if self._wanted is self._serving or (self._serving and self._serving.revision == self._wanted.revision):
            self._failures = max(self._failures, 1)  # not at once: nothing has changed since
            self._back_off(why, code)
        else:
            self._fail_rollout(why, code, [])

    def _launch(self) -> None:
        host, version = self._host, self._wanted
        id = f"{self.key.name}-{version.revision}-{os.urandom(3).hex()}"
        if self._prepared is not version or version.spec.secrets:  # a secret may have been removed since
            host.launcher.prepare_folders(version.spec)
            self._prepared = version
            self._logs.prune(set(self._replicas))
        path = self._log_folder / f"{id}.log"
        replica = Replica(id, version, host.launcher.socket(), monotonic(), now_rfc3339())
        replica.limits = host.limiter.prepare(id, limits_of(version.spec))
        settings = host.launcher.write_settings(id, version, replica.socket, path)
        self._replicas[id] = replica
        host.launched(id, self)
        host.link.start(
            id,
            settings=str(settings),
            socket=replica.socket,
            log=str(path),
            key=_zygote_key(self.key, version),
        )
        asyncio.get_running_loop().call_later(START_SECONDS, self._too_late, id)

    def _too_late(self, id: str) -> None:
        replica = self._replicas.get(id)
        if replica is not None and replica.state == "starting":
            self._start_failed(replica, f"it was not ready within {START_SECONDS:g} s", "start-timeout")
            self._kill(replica)

    def _drain(self, replica: Replica) -> None:
        self._host.link.stop(replica.id, signal.SIGTERM)
        seconds = replica.version.spec.timeout + _DRAIN_GRACE
        asyncio.get_running_loop().call_later(seconds, self._kill, replica)

    def _kill(self, replica: Replica) -> None:
        if replica.id in self._replicas:
            replica.state = "draining"
            self._host.link.stop(replica.id, signal.SIGKILL)

    def adopt(self, running: RunningReplica, launched: Launched) -> bool:
        """Take over a replica that an earlier control process had started; False when it is of no use."""
        for version in (self._wanted, self._serving):
            if version is not None and version.revision == launched.revision:
                replica = Replica(running.id, version, launched.socket, monotonic(), now_rfc3339(), pid=running.pid)
                replica.state = "ready" if running.ready else "starting"
                replica.limits = self._host.limiter.describe(limits_of(version.spec))
                self._replicas[running.id] = replica
                self._host.launched(running.id, self)
                asyncio.get_running_loop().call_later(START_SECONDS, self._too_late, running.id)
                log.info("%s: took over %s, which is %s", self.key, running.id, replica.state)
                return True
        return False

    # Events of the fork server

    def started(self, id: str, pid: int) -> None:
        replica = self._replicas.get(id)
        if replica is not None:
            replica.pid = pid
            self._host.limiter.add(id, pid)

    def ready(self, id: str) -> None:
        replica = self._replicas.get(id)
        if replica is not None and replica.state == "starting":
            replica.state = "ready"
            replica.since = monotonic()
            self._trouble = ""
            self.nudge()

    def exited(self, id: str, how: str, failure: str, code: str = "") -> None:
        """A replica has ended: `how`, and what it said of itself before (a function's words, and its code)."""
        replica = self._replicas.pop(id, None)
        if replica is None:
            return
        if self._host.limiter.ran_out_of_memory(id):
            limit = replica.version.spec.limits.memory if replica.version.spec.limits else ""
            code, failure = "out-of-memory", f"it ran out of memory: raise limits.memory (now {limit}), or use less"
        self._host.limiter.remove(id)
        if replica.state == "starting":
            code = code if code in FIXES else "cannot-start"
            self._start_failed(replica, failure or f"it ended before it was ready ({how})", code)
        elif replica.state == "ready":
            self._crashed(replica, failure or how, failure if code == "out-of-memory" else "")
        self.nudge()

    def all_lost(self) -> None:
        """The fork server has ended, and every replica with it."""
        for replica in self._replicas.values():
            self._host.limiter.remove(replica.id)
            if replica.pid:
                _end_group(replica.pid)
        self._replicas.clear()
        self.nudge()

    def _start_failed(self, replica: Replica, why: str, code: str) -> None:
        if replica.version is not self._wanted:
            return
        log.warning("%s: %s failed: %s", self.key, replica.id, why)
        if self._wanted is self._serving or (self._serving and self._serving.revision == self._wanted.revision):
            self._back_off(why, code)
        else:
            self._fail_rollout(why, code, self._logs.last_lines(replica.id, _OUTPUT_LINES))

    def _crashed(self, replica: Replica, how: str, out_of_memory: str) -> None:
        self.restarts += 1
        log.warning("%s: %s ended unasked (%s)", self.key, replica.id, out_of_memory or how)
        code = "out-of-memory" if out_of_memory else "crashed"
        reason = out_of_memory or f"the process that ran the call ended ({how}): `stoker logs` has what it printed last"
        self._losses.append(Loss(replica.id, code, reason))
        if monotonic() - replica.since > STABLE_SECONDS:
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
            self._host.link.forget(_zygote_key(self.key, self._wanted))
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
        spec = self.record.spec
        ready = sum(replica.state == "ready" for replica in self._replicas.values())
        return FunctionStatus(
            name=spec.service,
            image=spec.image,
            namespace=self.key.namespace,
            env_process=spec.env_process,
            env_vars=spec.env_vars,
            constraints=spec.constraints,
            secrets=spec.secrets,
            labels=spec.labels,
            annotations=spec.annotations,
            limits=spec.limits,
            requests=spec.requests,
            read_only_root_filesystem=spec.read_only_root_filesystem,
            replicas=self.record.replicas,
            available_replicas=ready,
            created_at=self.record.created_at,
            stoker=self._condition(ready),
        )

    def _condition(self, ready: int) -> Condition:
        record = self.record
        current = [r for r in self._replicas.values() if r.version is self._wanted and r.state == "ready"]
        if record.failure:
            state = "failed"
        elif record.replicas == 0:
            state = "zero"
        else:
            state = "ready" if len(current) >= record.replicas else "deploying"
        return Condition(
            state=state,
            revision=record.revision,
            serving=self._serving.revision if self._serving and ready else 0,
            message=record.failure or self._trouble,
            code=record.failure_code if record.failure else self._trouble_code if self._trouble else "",
            output=record.output,
            limits=next((r.limits for r in self._replicas.values() if r.limits), ""),
            timeout=format_duration(self._wanted.spec.timeout),
            restarts=self.restarts,
            instances=[
                Instance(id=r.id, state=r.state, pid=r.pid, started_at=r.started_at) for r in self._replicas.values()
            ],
        )

    @property
    def log_folder(self) -> Path:
        return self._log_folder

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _zygote_key(key: FunctionKey, version: Version) -> str:
    return f"{key}@{version.revision}"


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
