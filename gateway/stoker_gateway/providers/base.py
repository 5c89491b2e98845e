"""The seam between the control API and what runs functions: one interface, several providers.

A provider owns the desired state (specs, revisions, replica counts) and keeps replicas in line with it. It tells
control about every change of a route through the listener given to `start`; control passes that on to the proxies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Protocol

import msgspec

from stoker_gateway.revisions import Kept
from stoker_gateway.routes import Route
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.names import FunctionKey

RouteListener = Callable[[FunctionKey, Route | None], Awaitable[None]]
"""Called with the new route of a function (None: removed). Returns when every proxy has taken it over."""


class LogLine(msgspec.Struct, frozen=True):
    """One line of a function's log, as the contract sends it (section 2.5); `call` is ours: the call id, or empty."""

    name: str
    namespace: str
    instance: str
    timestamp: str
    text: str
    call: str = ""


class LogQuery(msgspec.Struct, frozen=True):
    """Which lines: all instances or one, since when, the last `tail` lines (-1: all), and whether to wait for more."""

    instance: str = ""
    since: datetime | None = None
    tail: int = -1
    follow: bool = False


class Provider(Protocol):
    """Runs functions. Every method raises `StokerError`s only; anything else is a bug."""

    name: str

    @property
    def is_leader(self) -> bool:
        """Whether this process does, of what several that share the functions could each do, what is done once."""

    async def start(self, listener: RouteListener) -> None:
        """Take up the stored functions and begin to report routes, one for each function at least."""

    async def close(self) -> None:
        """Stop what this process runs. Functions keep running where the provider says that they outlive it."""

    async def deploy(self, spec: FunctionSpec, *, create: bool) -> int:
        """Store a new revision and begin its rollout; returns the revision's number without waiting for replicas.

        The spec has been checked. `create` refuses an existing function (`Conflict`); otherwise a missing one is
        `NotFound` (contract section 2.4). A missing secret or artefact is `BadInput`. An unchanged spec starts nothing.
        """

    def revisions(self, key: FunctionKey) -> list[Kept]:
        """The function's history, the oldest first: at least what is asked for now. Raises `NotFound`."""

    async def rollback(self, key: FunctionKey, number: int) -> int:
        """Deploy what a kept revision asked for, with the image that it had; returns the new revision's number.

        Begins the rollout as `deploy` does. Raises `NotFound` for function and revision, and `BadInput`, with nothing
        changed, when a secret or an artefact is gone.
        """

    async def remove(self, key: FunctionKey) -> None:
        """Forget the function with its history, and drain its replicas. Raises `NotFound`."""

    async def scale(self, key: FunctionKey, replicas: int) -> None:
        """Set the number of replicas; more start, surplus ones drain. Raises `NotFound`, `BadInput`."""

    async def wake(self, key: FunctionKey) -> None:
        """A call waits and there is no ready replica: make sure that at least one starts. Unknown keys are ignored."""

    def list(self, namespace: str) -> list[FunctionStatus]:
        """Every function of the namespace, by name."""

    def get(self, key: FunctionKey) -> FunctionStatus:
        """One function. Raises `NotFound`."""

    def logs(self, key: FunctionKey, query: LogQuery) -> AsyncIterator[LogLine]:
        """The lines that the function printed, oldest first: an async generator, which the caller closes.

        Raises `NotFound` at the first step.
        """

    async def restart(self, key: FunctionKey) -> None:
        """Replace every replica by a new one of the same revision, as a rolling update does (a secret changed).

        Returns when it has begun, as `deploy` does.
        """
