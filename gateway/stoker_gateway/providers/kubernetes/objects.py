"""The parts of Kubernetes' objects that we read: typed, quick to decode, and blind to all the rest.

What we write is made by `manifests`; these are for what comes back.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """Absent fields and nulls are the same to Kubernetes."""


class OwnerReference(_Object, frozen=True):
    """`controller` is true of the one that manages the object."""

    api_version: str = ""
    kind: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(_Object, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None

    def annotation(self, key: str) -> str:
        return (self.annotations or {}).get(key, "")

    def is_older(self, other: Metadata) -> bool:
        return self.uid == other.uid and version_number(self.resource_version) < version_number(other.resource_version)


def version_number(text: str) -> int:
    """Versions grow: what the API's documentation once kept open, and every server does."""
    return int(text) if text.isdigit() else 0


class StatusCondition(_Object, frozen=True):
    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Template(_Object, frozen=True):
    metadata: Metadata = Metadata()
    spec: Any = None


class DeploymentSpec(_Object, frozen=True):
    replicas: int = 1
    progress_deadline_seconds: int = 600
    strategy: Any = None
    template: Template = Template()


class DeploymentStatus(_Object, frozen=True):
    observed_generation: int = 0
    conditions: list[StatusCondition] | None = None


class Deployment(_Object, frozen=True):
    metadata: Metadata
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class Waiting(_Object, frozen=True):
    reason: str | None = None
    message: str | None = None


class Running(_Object, frozen=True):
    started_at: str | None = None


class Terminated(_Object, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str | None = None
    message: str | None = None


class ContainerState(_Object, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object, frozen=True):
    name: str
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(_Object, frozen=True):
    phase: str = ""
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    reason: str | None = None
    message: str | None = None
    start_time: str | None = None
    conditions: list[StatusCondition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(_Object, frozen=True):
    metadata: Metadata
    status: PodStatus = PodStatus()


class Function(_Object, frozen=True):
    """The resource as users and we write it: anything may stand in it."""

    metadata: Metadata
    spec: Any = None
    status: Any = None


class Service(_Object, frozen=True):
    metadata: Metadata
    spec: Any = None


class Secret(_Object, frozen=True):
    """`data` is in base64, as Kubernetes sends it; never print one."""

    metadata: Metadata
    type: str = ""
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Secret {self.metadata.name}>"


class LeaseSpec(_Object, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    lease_transitions: int | None = None


class Lease(_Object, frozen=True):
    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()


class Named(_Object, frozen=True):
    """Any object, of which no more is read."""

    metadata: Metadata


class List(_Object, Generic[T], frozen=True):
    metadata: Metadata
    items: list[T]


class Event(_Object, frozen=True):
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw


class Status(_Object, frozen=True):
    """How the API says that something failed."""

    message: str = ""
    reason: str = ""
    code: int = 0


class ApiResource(_Object, frozen=True):
    name: str
    kind: str = ""
    namespaced: bool = False
    categories: list[str] | None = None


class ApiResources(_Object, frozen=True):
    """What is served of a group and version."""

    resources: list[ApiResource]


class Ignored(_Object, frozen=True):
    """An answer of which nothing is read."""


Manifest = dict[str, Any]
"""What we write: JSON as Kubernetes documents it."""
