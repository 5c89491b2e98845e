"""Deploying one function, and waiting until it is ready or has failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from stoker_sdk.errors import NotFound, StokerError, Unavailable

if TYPE_CHECKING:
    from stoker_sdk.client import ControlClient
    from stoker_sdk.function import FunctionSpec, FunctionStatus

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at a function: short at first, because a warm start takes milliseconds."""


class Progress(Protocol):
    """How one function is doing."""

    def step(self, text: str) -> None:
        """A new step begins."""

    def log(self, line: str) -> None:
        """A line of the step's own output."""


class Mode(Enum):
    """What happens to a function that exists: it is changed, refused, or removed first (section 3.2)."""

    UPDATE = "update"
    CREATE = "create"
    REPLACE = "replace"


@dataclass(frozen=True)
class Outcome:
    """How a rollout stands. `failure` is why it failed or does not go on, `output` what the replica printed last."""

    is_over: bool
    failure: str = ""
    output: tuple[str, ...] = ()


def deploy(client: ControlClient, spec: FunctionSpec, mode: Mode) -> int:
    """Send the function and return its revision, or 0 when the gateway counts none."""
    if mode is Mode.UPDATE:
        try:
            return client.update(spec)
        except NotFound:
            return client.create(spec)
    if mode is Mode.REPLACE:
        try:
            client.remove(spec.service, spec.namespace)
        except NotFound:
            pass
    return client.create(spec)


def outcome(status: FunctionStatus, revision: int) -> Outcome:
    """What a status says of a revision. A gateway without revisions is done when a replica is available."""
    condition = status.stoker
    if condition is None:
        return Outcome(is_over=status.available_replicas > 0 or status.replicas == 0)
    if condition.revision < revision:
        return Outcome(is_over=False)
    undone = condition.rolled_back
    if undone is not None and undone.revision == revision:
        message = f"{undone.message}\nrolled back to revision {undone.to}, which serves"
        return Outcome(is_over=True, failure=message, output=tuple(undone.output))
    if condition.state == "failed":
        message = condition.message or "it did not get ready"
        return Outcome(not condition.rollback_to, message, tuple(condition.output))
    return Outcome(is_over=condition.state in ("ready", "zero"))


def wait_until_ready(
    client: ControlClient,
    spec: FunctionSpec,
    revision: int,
    limit: float,
    progress: Progress,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Look until the revision is ready. `limit` is in seconds. Raises `StokerError` with the reason when it
    fails; one that the platform will roll back is waited for to the end, and what keeps it is told meanwhile.
    """
    progress.step("starting")
    deadline = time.monotonic() + limit
    pause = _FIRST_PAUSE
    told = ""
    while True:
        found = _look(client, spec, revision)
        if found.failure and found.is_over:
            for line in found.output:
                progress.log(line.rstrip())
            raise StokerError(f"it did not start: {found.failure}")
        if found.is_over:
            return
        if found.failure and found.failure != told:
            told = found.failure
            progress.log(f"not ready: {told}")
        if time.monotonic() + pause > deadline:
            reason = f": {told}" if told else ""
            raise StokerError(
                f"it was not ready after {limit:g} seconds{reason}\n"
                f"look at `stoker describe {spec.service}`, or give it longer with --wait-timeout"
            )
        sleep(pause)
        pause = min(pause * 1.25, _LONGEST_PAUSE)


def _look(client: ControlClient, spec: FunctionSpec, revision: int) -> Outcome:
    try:
        return outcome(client.function(spec.service, spec.namespace), revision)
    except Unavailable:
        # The platform may be restarting; the deadline ends the wait if it does not come back.
        return Outcome(is_over=False)
