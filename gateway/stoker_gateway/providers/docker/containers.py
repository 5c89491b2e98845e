"""The runner of functions whose image is a container's: on this machine, by its Docker Engine.

The Engine is the truth about what runs. Labels say whose a container is, so a control process that was killed finds its
own again, and those of another platform are never looked at. Containers end with their platform: what an earlier
server of this data folder left is removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from aiohttp import ClientSession, TCPConnector

from stoker_gateway.providers.container import PORT, check_paths
from stoker_gateway.providers.docker.body import CONNECTIONS, ID, IMAGE, REVISION, START, Place, key_of
from stoker_gateway.providers.docker.engine import Container, Engine, EngineAway, Listed
from stoker_gateway.providers.docker.images import Images, Logins
from stoker_gateway.providers.docker.life import Life, Wish, World
from stoker_gateway.providers.docker.probe import Probe
from stoker_gateway.providers.docker.pulled import PulledImages
from stoker_gateway.providers.images.credentials import read_docker_config
from stoker_gateway.providers.local.launch import Launcher, RunDir, limits_of
from stoker_gateway.providers.local.plan import Replica
from stoker_gateway.providers.local.runner import Found, Owner, Owners
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

log = logging.getLogger("stoker.docker")

_RETRY_SECONDS = 0.5
_STOP_SECONDS = 4
_USER = 12000
"""For functions of a platform that is root and has no user ids to give; a cluster's default."""


class Containers:
    """Implements `ContainerRunner`."""

    def __init__(
        self,
        engine: Engine,
        images: Images,
        place: Place,
        data: DataDir,
        run: RunDir,
        launcher: Launcher,
        owners: Owners,
    ) -> None:
        self._engine = engine
        self._images = images
        self._place = place
        self._data = data
        self._run = run
        self._launcher = launcher
        self._functions = owners
        self._lives: dict[str, Life] = {}
        self._session: ClientSession | None = None
        self._up = asyncio.Event()
        self._away = ""
        self._opening = asyncio.Lock()
        self._networking = asyncio.Lock()
        self._reconnecting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and take over what runs already. Raises `EngineAway`; then `open_in_time` goes on trying."""
        async with self._opening:
            if self._up.is_set():
                return
            if self._session is None:
                self._session = ClientSession(connector=TCPConnector(limit=0, force_close=True))
            try:
                await self._take_over()
            except EngineAway as error:
                self._tell_away(str(error))
                raise
            self._away = ""
            self._data.containers.touch(mode=0o600)
            self._up.set()
        for owner in self._functions.owners():
            owner.nudge()

    def _tell_away(self, why: str) -> None:
        """Those who wait for a container are told why."""
        if not self._away:
            self._away = why
            for owner in self._functions.owners():
                owner.nudge()

    def open_in_time(self) -> None:
        """Go on trying until the Engine answers."""
        self._up.clear()
        if self._reconnecting is None:
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect(), name="find the Engine")

    async def _reconnect(self) -> None:
        try:
            while not self._up.is_set():
                await asyncio.sleep(_RETRY_SECONDS)
                try:
                    await self.open()
                except StokerError as error:
                    log.debug("%s", error)
        finally:
            self._reconnecting = None

    async def _answers(self) -> None:
        """For a container that goes on when the Engine does."""
        self.open_in_time()
        await self._up.wait()

    async def close(self) -> None:
        """The platform ends, and its containers with it. A control process that is killed leaves them running."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        tasks = [task for life in self._lives.values() if (task := life.abandon())]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._up.is_set():
            await self._clear()
        if self._session is not None:
            await self._session.close()
        await self._engine.close()

    async def _clear(self) -> None:
        try:
            listed = await self._engine.containers(self._place.label)
            await asyncio.gather(*(self._engine.stop(one.id, _STOP_SECONDS) for one in listed), return_exceptions=True)
            await asyncio.gather(*(self._discard(one.id) for one in listed))
            for network in await self._engine.networks(self._place.label):
                await self._engine.remove_network(network)
            self._data.containers.unlink(missing_ok=True)
        except StokerError as error:
            log.warning("containers may be left: %s", error)

    # What a function asks

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def away(self) -> str:
        return self._away

    async def pin(self, spec: FunctionSpec) -> str:
        check_paths(spec)
        await self.open()
        return await self._images.pin(spec, self._logins(spec)[0])

    async def collect(self, used: Collection[str], keep: float) -> None:
        if self._up.is_set():
            await self._images.collect(used, keep)

    def prepare(self, spec: FunctionSpec) -> None:
        self._launcher.prepare_folders(spec, self._group(spec.key), self._logins(spec)[1])

    def launch(self, replica: Replica, owner: Owner) -> None:
        spec = replica.version.spec
        logins, files = self._logins(spec)
        replica.limits = self.describe(spec)
        wish = Wish(
            version=replica.version,
            user=self._user(owner.key),
            secrets=self._run.secrets_of(owner.key) if files else None,
            logins=logins,
            begun=lambda: owner.begun(replica),
        )
        life = self._life(replica.id, owner)
        life.run(life.begin(wish), self._forget)

    def end(self, id: str, number: int) -> None:
        if life := self._lives.get(id):
            life.end(number)

    def forget(self, key: FunctionKey, revision: int) -> None:
        """Nothing is kept for the next replica."""

    def describe(self, spec: FunctionSpec) -> str:
        limits = limits_of(spec)
        parts = ["memory by container"] * bool(limits.memory) + ["cpu by container"] * bool(limits.cores)
        return ", ".join(parts)

    def _life(self, id: str, owner: Owner) -> Life:
        assert self._session is not None
        world = World(
            self._engine, self._images, self._place, self._session, self._network, self.open_in_time, self._answers
        )
        life = Life(world, id, owner, self._data.function_logs(owner.key) / f"{id}.log")
        self._lives[id] = life
        return life

    async def _network(self) -> str:
        """The id of ours, made when it is not there."""
        async with self._networking:
            there = await self._engine.networks(self._place.label)
            return there[0] if there else await self._engine.create_network(self._place.network, self._place.label)

    def _forget(self, id: str) -> None:
        self._lives.pop(id, None)

    def _logins(self, spec: FunctionSpec) -> tuple[Logins, Sequence[str]]:
        """A secret with a Docker configuration fetches the image; the others are files. Raises `NotFound`."""
        logins, files = [], []
        for name in spec.secrets or []:
            try:
                logins.append(read_docker_config(self._launcher.secret(spec.key.namespace, name), f"secret {name!r}"))
            except BadInput:
                files.append(name)
        return logins, files

    def _group(self, key: FunctionKey) -> int:
        """Who besides us may read its secrets; -1 where we are who it runs as."""
        if os.geteuid():
            return -1
        own = self._launcher.user(key)
        return own if own > 0 else _USER

    def _user(self, key: FunctionKey) -> str:
        group = self._group(key)
        return f"{group}:{group}" if group > 0 else f"{os.geteuid()}:{os.getegid()}"

    # What runs already

    async def _take_over(self) -> None:
        listed = await self._engine.containers(self._place.label)
        await asyncio.gather(*(self._take(one) for one in listed))

    async def _take(self, listed: Listed) -> None:
        labels = listed.labels or {}
        id = labels.get(ID, "")
        if id in self._lives:
            return
        owner = self._functions.owner(key_of(labels)) if labels.get(START) == self._place.start else None
        if owner is None or listed.state != "running":
            await self._discard(listed.id)
            return
        try:
            container = await self._engine.inspect(listed.id)
        except NotFound:
            return
        await self._adopt(container, id, labels, owner)

    async def _adopt(self, container: Container, id: str, labels: dict[str, str], owner: Owner) -> None:
        assert self._session is not None
        ready = await Probe(self._session, container.address, owner.spec, id, owner).is_ready()
        found = Found(
            id=id,
            revision=int(labels.get(REVISION, "0")),
            address=f"tcp:{container.address}:{PORT}",
            image=labels.get(IMAGE, ""),
            pid=container.state.pid,
            connections=int(labels.get(CONNECTIONS, "0")),
            ready=ready,
        )
        life = self._life(id, owner)
        life.run(life.resume(container, owner.spec, opened=ready), self._forget)
        owner.adopt(found, self)

    async def _discard(self, container: str) -> None:
        try:
            await self._engine.remove(container)
        except EngineAway:
            raise
        except StokerError as error:
            log.debug("container %s: %s", container[:12], error)


def connect(host: str, config: Path, data: DataDir, run: RunDir, launcher: Launcher, owners: Owners) -> Containers:
    """The containers of this data folder at the Engine `host`; nothing is asked of it yet. Raises `BadInput`."""
    engine = Engine(host)
    return Containers(
        engine, Images(engine, config, PulledImages(data.pulled_images)), _place(data, run), data, run, launcher, owners
    )


def _place(data: DataDir, run: RunDir) -> Place:
    """The run folder is made anew by each server, and not by each control process."""
    platform = hashlib.sha256(os.fsencode(data.path.resolve())).hexdigest()[:12]
    try:
        start = run.start_mark.read_text()
    except FileNotFoundError:
        start = os.urandom(6).hex()
        write_whole(run.start_mark, start.encode())
    return Place(platform, start)
