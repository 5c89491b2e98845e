"""A function's pods as replicas: which get calls, which do not, and why.

Everything is read from the pod itself, so that a platform that has just started, and any number of them, see the same.
A pod that is being deleted gets no calls from the moment that the watch says so, whatever its readiness is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from stoker_gateway.providers.container import PORT
from stoker_gateway.providers.kubernetes.manifests import IDENTITY, RESTART, REVISION, key_of
from stoker_gateway.providers.kubernetes.objects import ContainerStatus, Pod, StatusCondition
from stoker_gateway.providers.text import one_line
from stoker_gateway.routes import Target
from stoker_sdk.function import Instance
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import parse_rfc3339

State = Literal["starting", "ready", "unhealthy", "draining"]

_PULL_REASONS: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_ENDED: Final = ("cannot-start", "out-of-memory")
_OUTPUT_LINES = 20
_ASKED_SIGNALS: Final = (9, 15)
_ASKED_CODES: Final = (0, 137, 143)
"""How a container ends that the cluster ends, because its probes fail; 137 and 143 are the signals, as shells say."""


@dataclass(frozen=True)
class Trouble:
    """Why a replica does not start: a code of `faults`, a line, and the last lines that it printed.

    `was_asked`: its container ended as one does that is asked to, so it may not be what was wrong.
    """

    code: str
    message: str
    output: tuple[str, ...] = ()
    was_asked: bool = False


@dataclass(frozen=True)
class Replica:
    """One pod. `version` is the revision and restart that it was made for; `trouble` keeps it from getting ready;
    `life` is the life of its container that runs, and empty while none does. `note` is why it is not ready, as far as
    the replica itself says, or what was seen of it.
    """

    id: str
    key: FunctionKey
    identity: str
    version: tuple[int, str]
    state: State
    ip: str
    started_at: str
    restarts: int
    life: str
    trouble: Trouble | None
    note: str = ""

    @property
    def ended_twice(self) -> bool:
        """It has been started again once already, and has ended again: it will not do better by itself."""
        return self.restarts > 0 and self.trouble is not None and self.trouble.code in _ENDED

    @property
    def target(self) -> Target:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return Target(self.id, f"tcp:{host}:{PORT}")

    def instance(self, reason: str = "") -> Instance:
        """As `describe` shows it; `reason` is why it is unhealthy, where the replica itself has said it."""
        message = reason if self.state == "unhealthy" else self.trouble.message if self.trouble else self.note
        return Instance(self.id, self.state, started_at=self.started_at, message=message)


def replica_of(pod: Pod) -> Replica:
    metadata, status = pod.metadata, pod.status
    container = _container(pod)
    return Replica(
        id=metadata.name,
        key=key_of(metadata.labels, metadata.namespace),
        identity=metadata.annotation(IDENTITY),
        version=(number(metadata.annotation(REVISION)), metadata.annotation(RESTART)),
        state=_state(pod, container),
        ip=status.pod_ip or "",
        started_at=metadata.creation_timestamp or "",
        restarts=container.restart_count if container else 0,
        life=f"{metadata.uid}/{container.restart_count}" if container and container.state.running else "",
        trouble=_trouble(pod, container),
    )


def targets_of(replicas: Iterable[Replica]) -> list[Target]:
    """Those that get calls, in a lasting order."""
    return [one.target for one in sorted(replicas, key=lambda one: one.id) if one.state == "ready"]


def number(text: str) -> int:
    """A number that we once wrote into an annotation; 0 for what somebody else wrote there."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _state(pod: Pod, container: ContainerStatus | None) -> State:
    if pod.metadata.deletion_timestamp or pod.status.phase in ("Failed", "Succeeded"):
        return "draining"
    ready = _condition(pod, "Ready")
    if ready is not None and ready.status == "True" and pod.status.pod_ip:
        return "ready"
    return "unhealthy" if _was_ready(ready, container) else "starting"


def _was_ready(ready: StatusCondition | None, container: ContainerStatus | None) -> bool:
    """Its readiness has changed since its container was started: so it had been ready."""
    running = container.state.running if container else None
    if ready is None or not ready.last_transition_time or running is None or not running.started_at:
        return False
    return _time(ready.last_transition_time) > _time(running.started_at)


def _trouble(pod: Pod, container: ContainerStatus | None) -> Trouble | None:
    """What will not pass by itself soon; a pod that merely starts has none."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return Trouble("unschedulable", f"no node takes it: {one_line(scheduled.message or '')}")
    if pod.status.phase == "Failed":
        return Trouble("cannot-start", one_line(pod.status.message or pod.status.reason or "the pod failed"))
    if container is None:
        return None
    waiting = container.state.waiting
    if waiting is not None and waiting.reason in _PULL_REASONS:
        return Trouble("image-pull", f"{waiting.reason}: {one_line(waiting.message or '')}")
    if waiting is not None and waiting.reason in (
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ):
        return Trouble("cannot-start", f"{waiting.reason}: {one_line(waiting.message or '')}")
    return _crash(container)


def _crash(container: ContainerStatus) -> Trouble | None:
    """It has ended, and is to be started again or has been: how it ended last."""
    ended = container.state.terminated or (None if container.state.running else container.last_state.terminated)
    if ended is None:
        return None
    if ended.reason == "OOMKilled":
        return Trouble("out-of-memory", "killed, because it took more memory than limits.memory allows")
    output = tuple((ended.message or "").splitlines()[-_OUTPUT_LINES:])
    how = f"killed by signal {ended.signal}" if ended.signal else f"ended with exit code {ended.exit_code}"
    last = next((line.strip() for line in reversed(output) if line.strip()), "")
    was_asked = ended.signal in _ASKED_SIGNALS or (not ended.signal and ended.exit_code in _ASKED_CODES)
    return Trouble("cannot-start", f"{how}: {one_line(last)}" if last else how, output, was_asked)


def _container(pod: Pod) -> ContainerStatus | None:
    """The function's own; a mesh may have put another beside it."""
    name = (key_of(pod.metadata.labels, "")).name
    return next((one for one in pod.status.container_statuses or [] if one.name == name), None)


def _condition(pod: Pod, type: str) -> StatusCondition | None:
    return next((one for one in pod.status.conditions or [] if one.type == type), None)


def _time(text: str) -> datetime:
    return parse_rfc3339(text)
