"""One replica's container, from its image to its removal: started, asked, listened to, and waited for."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from stoker_gateway.providers.container import PORT
from stoker_gateway.providers.docker.body import Place, body_of
from stoker_gateway.providers.docker.engine import Container, Engine, EngineAway, State
from stoker_gateway.providers.docker.images import Images, Logins
from stoker_gateway.providers.docker.logs import LogPump
from stoker_gateway.providers.docker.probe import Probe
from stoker_gateway.providers.local.plan import Version
from stoker_gateway.providers.local.runner import Owner
from stoker_sdk.errors import Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec

log = logging.getLogger("stoker.docker")

_LOG_END_SECONDS = 2.0
"""So long the last lines of a container that has ended are waited for."""


@dataclass(frozen=True)
class World:
    """What all containers of a platform share. `away` hears that the Engine does not answer; `answers` waits for it."""

    engine: Engine
    images: Images
    place: Place
    session: ClientSession
    network: Callable[[], Awaitable[str]]
    away: Callable[[], None]
    answers: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Wish:
    """What a new container is made from. `begun` says that its own time begins."""

    version: Version
    user: str
    secrets: Path | None
    logins: Logins
    begun: Callable[[], None]


class Life:
    """Replica `id` of `owner`. The owner hears of everything until it has heard that the replica has ended."""

    def __init__(self, world: World, id: str, owner: Owner, log_file: Path) -> None:
        self._world = world
        self._id = id
        self._owner = owner
        self._log = LogPump(log_file)
        self._container = ""
        self._making = False
        self._running = False
        self._to_end = 0
        self._task: asyncio.Task[None] | None = None
        self._signals: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None], ended: Callable[[str], None]) -> None:
        """Live in a task of its own: `work` is what `begin` or `resume` gives."""
        self._task = asyncio.get_running_loop().create_task(self._guarded(work), name=f"container of {self._id}")
        self._task.add_done_callback(lambda _: ended(self._id))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("%s: looking after its container failed", self._id)
            self._owner.exited(self._id, "", "the platform could not look after its container: its log says why")
            await self._remove()

    def end(self, number: int) -> None:
        """Send it a signal; what has not begun does not begin any more."""
        if self._running:
            task = asyncio.get_running_loop().create_task(self._kill(number), name=f"signal for {self._id}")
            self._signals.add(task)
            task.add_done_callback(self._signals.discard)
        elif self._making:
            self._to_end = number
        else:
            self.abandon()
            self._owner.exited(self._id, "ended before it had started", "")

    def abandon(self) -> asyncio.Task[None] | None:
        """Look no more after it; it goes on."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _kill(self, number: int) -> None:
        try:
            await self._world.engine.kill(self._container, number)
        except (NotFound, Conflict):
            pass  # it has ended already
        except StokerError as error:
            log.warning("%s got no %s: %s", self._id, signal.Signals(number).name, error)

    # From the image on

    async def begin(self, wish: Wish) -> None:
        try:
            await self._fetch(wish)
            wish.begun()
            started = await self._start(wish)
        except EngineAway as error:
            log.warning("%s: %s", self._id, error)
            self._world.away()
            self._owner.lost(self._id)
        except _NoImage as error:
            self._owner.exited(self._id, "", str(error), "image-pull")
        except StokerError as error:
            await self._remove()
            self._owner.exited(self._id, "", str(error), "cannot-start")
        else:
            await self._look_after(started, wish.version.spec, opened=False)

    async def _fetch(self, wish: Wish) -> None:
        def progress(text: str) -> None:
            self._owner.progress(self._id, text)

        try:
            await self._world.images.fetch(wish.version.image, wish.logins, progress)
        except EngineAway:
            raise
        except (StokerError, TimeoutError) as error:
            raise _NoImage(str(error) or "its image could not be fetched in time") from error

    async def _start(self, wish: Wish) -> Container:
        engine, place = self._world.engine, self._world.place
        self._making = True
        network = await self._world.network()
        body = body_of(self._id, wish.version, place, network=network, user=wish.user, secrets=wish.secrets)
        self._container = await engine.create(place.container(self._id), body)
        await engine.start(self._container)
        self._running = True
        if self._to_end:
            await self._kill(self._to_end)
        return await engine.inspect(self._container)

    # While it runs

    async def resume(self, container: Container, spec: FunctionSpec, *, opened: bool) -> None:
        """It ran already."""
        self._container, self._running = container.id, True
        await self._look_after(container, spec, opened=opened)

    async def _look_after(self, container: Container, spec: FunctionSpec, *, opened: bool) -> None:
        host = container.address
        self._owner.started(self._id, container.state.pid, f"tcp:{host}:{PORT}" if host else "")
        probe = Probe(self._world.session, host, spec, self._id, self._owner)
        loop = asyncio.get_running_loop()
        listening = loop.create_task(self._listen(), name=f"log of {self._id}")
        asking = loop.create_task(probe.run(opened=opened), name=f"probe of {self._id}")
        try:
            state = await self._until_it_ends()
            asking.cancel()
            if not probe.opened:
                await asyncio.wait([listening], timeout=_LOG_END_SECONDS)
            self._owner.exited(self._id, *self._told(state))  # at once where callers wait to hear why their calls broke
            await asyncio.wait([listening], timeout=_LOG_END_SECONDS)
        finally:
            asking.cancel()
            listening.cancel()
        await self._remove()

    async def _until_it_ends(self) -> State:
        while True:
            try:
                await self._world.engine.wait(self._container)
                state = (await self._world.engine.inspect(self._container)).state
                if not state.running:
                    return state
            except NotFound:
                return State(error="somebody removed its container")
            except EngineAway:
                await self._world.answers()

    async def _listen(self) -> None:
        while True:
            try:
                await self._log.run(self._world.engine, self._container)
                return
            except EngineAway:
                await self._world.answers()
            except StokerError:
                return  # it is gone

    def _told(self, state: State) -> tuple[str, str, str]:
        """How it ended, with its last words; what the platform says of it; a code."""
        if state.oom_killed:
            return "killed by SIGKILL", "", "out-of-memory"
        how = state.error or _how(state.exit_code)
        return f"{how}: {self._log.last}" if self._log.last and state.exit_code else how, "", ""

    async def _remove(self) -> None:
        if not self._container:
            return
        try:
            await self._world.engine.remove(self._container)
        except (NotFound, Conflict):
            pass  # or it is being removed
        except StokerError as error:
            log.warning("the container of %s stays: %s", self._id, error)


class _NoImage(StokerError):
    """What it is made of is not to be had."""


def _how(code: int) -> str:
    """As the watchdog says of a process."""
    if code <= 128:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"exit code {code}"
