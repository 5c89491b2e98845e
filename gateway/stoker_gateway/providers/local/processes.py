"""Replicas that are processes of this machine: forks of the fork server, each on a unix socket.

They outlive control: a new control process asks the fork server for its list. They do not outlive the fork server.
"""

from __future__ import annotations

import asyncio
import os
import signal

from stoker_gateway.providers.local.forklink import Event, ForkLink, RunningReplica
from stoker_gateway.providers.local.launch import Launched, Launcher, RunDir, limits_of
from stoker_gateway.providers.local.limiter import Limiter
from stoker_gateway.providers.local.plan import Replica
from stoker_gateway.providers.local.runner import Found, Owner, Owners
from stoker_sdk.data_dir import DataDir
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

_DRAIN_SECONDS = 60.0


class Processes:
    """Implements `Runner`."""

    def __init__(self, data: DataDir, run: RunDir, launcher: Launcher, limiter: Limiter, owners: Owners) -> None:
        self._data = data
        self._launcher = launcher
        self._limiter = limiter
        self._functions = owners
        self._link = ForkLink(str(run.fork_socket), self._heard, self._lost)
        self._owners: dict[str, Owner] = {}
        self._pids: dict[str, int] = {}

    async def open(self) -> None:
        """Connect to the fork server, for as long as it takes, and take over the replicas that it has."""
        await self._link.open()

    async def close(self) -> None:
        await self._link.close()

    @property
    def is_up(self) -> bool:
        return self._link.connected.is_set()

    @property
    def away(self) -> str:
        return ""  # the fork server is back at once

    def prepare(self, spec: FunctionSpec) -> None:
        self._launcher.prepare_folders(spec)

    def launch(self, replica: Replica, owner: Owner) -> None:
        spec, socket = replica.version.spec, self._launcher.socket()
        log = self._data.function_logs(owner.key) / f"{replica.id}.log"
        replica.address = f"unix:{socket}"
        replica.limits = self._limiter.prepare(replica.id, limits_of(spec))
        settings = self._launcher.write_settings(replica.id, replica.version, socket, log)
        self._owners[replica.id] = owner
        self._link.start(
            replica.id,
            settings=str(settings),
            socket=socket,
            log=str(log),
            key=_zygote_key(owner.key, replica.version.revision),
        )
        owner.begun(replica)

    def end(self, id: str, number: int) -> None:
        self._link.stop(id, number)

    def forget(self, key: FunctionKey, revision: int) -> None:
        self._link.forget(_zygote_key(key, revision))

    def describe(self, spec: FunctionSpec) -> str:
        return self._limiter.describe(limits_of(spec))

    # Events of the fork server

    def _heard(self, event: Event) -> None:
        if event.event == "replicas":
            self._adopt(event)
            return
        owner = self._owners.get(event.id)
        if owner is None:
            return
        if event.event == "started":
            self._pids[event.id] = event.pid
            self._limiter.add(event.id, event.pid)
            owner.started(event.id, event.pid)
        elif event.event == "ready":
            owner.ready(event.id, event.health)
        elif event.event == "health":
            owner.health(event.id, event.health)
        elif event.event == "exited":
            self._exited(event, owner)

    def _exited(self, event: Event, owner: Owner) -> None:
        del self._owners[event.id]
        self._pids.pop(event.id, None)
        failure, code = event.failure, event.code
        if self._limiter.ran_out_of_memory(event.id):
            failure, code = "", "out-of-memory"
        self._limiter.remove(event.id)
        owner.exited(event.id, event.exit, failure, code)

    def _adopt(self, event: Event) -> None:
        """Take over what an earlier control process had started; end what is of no use, or was ending already."""
        self._launcher.tidy({replica.id for replica in event.replicas})
        self._limiter.tidy()
        for replica in event.replicas:
            launched = self._launcher.read_settings(replica.id)
            owner = self._functions.owner(launched.key) if launched else None
            if launched and owner:
                self._owners[replica.id] = owner
                self._pids[replica.id] = replica.pid
                owner.adopt(_found(replica, launched), self)
                continue
            self._link.stop(replica.id, signal.SIGTERM)
            asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._link.stop, replica.id, signal.SIGKILL)
        for one in self._functions.owners():
            one.nudge()

    def _lost(self) -> None:
        """The fork server has ended, and every replica with it."""
        owners, pids = self._owners, self._pids
        self._owners, self._pids = {}, {}
        for id, owner in owners.items():
            self._limiter.remove(id)
            if pids.get(id):
                _end_group(pids[id])
            owner.lost(id)


def _found(replica: RunningReplica, launched: Launched) -> Found:
    return Found(
        id=replica.id,
        revision=launched.revision,
        address=f"unix:{launched.socket}",
        pid=replica.pid,
        connections=launched.connections,
        ready=replica.ready,
        stopping=replica.stopping,
        health=replica.health,
    )


def _zygote_key(key: FunctionKey, revision: int) -> str:
    return f"{key}@{revision}"


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
