"""The seam to whoever keeps repositories: our own remote, GitHub, GitLab.

A forge calls `Runs.accept(push)` when a branch has moved; the run is stored when that returns, and to accept the same
push twice is harmless. Everything else is asked of the forge by these three questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from stoker_sdk.errors import Unavailable
from stoker_sdk.runs import Push, Run


class NotNow(Unavailable):
    """The forge asks us to come back in so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Remote:
    """Where a commit is fetched from. `authorization` is a whole header value, or empty; it reaches no disk and no log.

    `protocol` is the one that git may speak: `https`, `http`, or `file` for our own repositories.
    """

    url: str
    protocol: str
    authorization: str = ""
    user: int | None = None
    """Whose files they are, where the platform is root and the repository is on this machine."""


NOWHERE: Final = Remote("", "")
"""For a run that fetches nothing."""

PATIENCE: Final = 300.0
"""Seconds for which a run waits for a forge to answer, before it fails: nobody would push again for that."""


async def patiently(ask: Callable[[], Awaitable[str]]) -> str:
    """Ask again while the forge is away, for a while. Raises what it raised last."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + PATIENCE, 0.5
    while True:
        try:
            return await ask()
        except Unavailable as error:
            wait = max(pause, error.seconds if isinstance(error, NotNow) else 0.0)
            if loop.time() + wait > deadline:
                raise
            await asyncio.sleep(wait)
            pause = min(pause * 2, 10.0)


class Forge(Protocol):
    """One kind of repository keeper. Errors are `StokerError`s: `Unavailable` is tried again."""

    name: str
    """As in `Push.forge`."""

    reports: bool
    """Whether `report` is to be called at all."""

    @property
    def is_busy(self) -> bool:
        """Whether the process must stay: something goes on, or pushes could be missed that `look` has to find."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Its HTTP routes, which check who calls by themselves."""

    async def head(self, push: Push) -> str:
        """The commit that the push's branch (or pull request) is at now; `GONE` when there is none.

        Raises `Conflict` when the owner's name is another account's here.
        """

    async def remote(self, push: Push) -> Remote:
        """From where, and with which credential of a few minutes' life, the push's commit is fetched."""

    async def account(self, push: Push) -> str:
        """Whose the push is, as in `Run.account`."""

    async def report(self, run: Run) -> None:
        """Tell the forge how a run stands: a commit status, a check run. Called for the newest change only, again with
        growing pauses until it returns, also after a restart. A run that is over is told once more after a change.
        """

    async def look(self) -> None:
        """Find pushes that were missed, and accept them. Called at the start, and now and then."""
