"""What runs the replicas of a version: processes of the fork server, or containers. A function does not know which.

A runner tells the replica's owner what becomes of it, and forgets it when it has told that it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from stoker_gateway.providers.local.plan import Replica
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey


@dataclass(frozen=True)
class Found:
    """A replica that an earlier control process had started. `image` is empty where it is no container."""

    id: str
    revision: int
    address: str
    image: str = ""
    pid: int = 0
    connections: int = 0
    ready: bool = False
    stopping: bool = False
    health: str = ""


class Owner(Protocol):
    """The function of a replica, which hears of it by its id."""

    key: FunctionKey

    @property
    def spec(self) -> FunctionSpec:
        """What its replicas are to be."""

    def begun(self, replica: Replica) -> None:
        """Its `start_timeout` runs from now on."""

    def progress(self, id: str, text: str) -> None:
        """What it is doing while it starts."""

    def started(self, id: str, pid: int, address: str = "") -> None:
        """It runs. `address` is told where it was not known before."""

    def ready(self, id: str, health: str) -> None:
        """It has opened up; `health` is why it cannot serve even so."""

    def health(self, id: str, reason: str) -> None:
        """It cannot serve for now, or can again: an empty reason."""

    def exited(self, id: str, how: str, failure: str, code: str = "") -> None:
        """It has ended: how, and what was said before (its own words, and a code of `faults`)."""

    def lost(self, id: str) -> None:
        """It is gone with what ran it, and by no fault of its own."""

    def adopt(self, found: Found, runner: Runner) -> None:
        """It has been running all the time."""

    def nudge(self) -> None:
        """Replicas can be started again, perhaps."""


class Owners(Protocol):
    """The functions that there are."""

    def owner(self, key: FunctionKey) -> Owner | None: ...

    def owners(self) -> Iterable[Owner]: ...


class Runner(Protocol):
    """Starts and ends replicas."""

    @property
    def is_up(self) -> bool:
        """Whether replicas can be started now. The owners are nudged when they can again."""

    @property
    def away(self) -> str:
        """Why none can be started until somebody mends it; else empty."""

    def prepare(self, spec: FunctionSpec) -> None:
        """Lay out what all replicas of a function share. Raises `NotFound` for a secret, `StokerError`, `OSError`."""

    def launch(self, replica: Replica, owner: Owner) -> None:
        """Begin to start a replica. Raises `StokerError`, `OSError`."""

    def end(self, id: str, number: int) -> None:
        """Send a replica a signal; to one that has ended, nothing."""

    def forget(self, key: FunctionKey, revision: int) -> None:
        """No more replicas of this revision will be started."""

    def describe(self, spec: FunctionSpec) -> str:
        """One line for `describe`: what limits its replicas."""


class ContainerRunner(Runner, Protocol):
    """Runs images of containers. Nothing is asked of the Engine before `open` or `pin`."""

    async def open(self) -> None:
        """Take over what runs already. Raises `Unavailable` while no Engine answers."""

    def open_in_time(self) -> None:
        """Open when an Engine answers."""

    async def close(self) -> None:
        """End all containers: the platform ends."""

    async def pin(self, spec: FunctionSpec) -> str:
        """The image that the function's tag means now. Raises `BadInput`, `NotFound` (a secret), `Unavailable`."""

    async def collect(self, used: Collection[str], keep: float) -> None:
        """Remove images that were fetched for functions, where none of `used` and none for `keep` seconds."""


ContainerRunners = Callable[[Owners], ContainerRunner]
"""Makes the one that there is, when it is needed."""
