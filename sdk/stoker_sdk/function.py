"""The function: what a user asks for, what the platform answers, and the checks in between.

Field names and their omission are those of the contract (section 2.3), so these structs are the wire format too.
What the user sent is kept verbatim: a client's `diff` must show no change (section 16, quirk 18).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stoker_sdk.addresses import check_visibility
from stoker_sdk.errors import BadInput
from stoker_sdk.faults import Fault
from stoker_sdk.keeping import check_idempotent, check_keep
from stoker_sdk.names import (
    DEFAULT_NAMESPACE,
    FunctionKey,
    check_environment_key,
    check_function_name,
    check_label,
    check_namespace,
    check_qualified_key,
    check_secret_name,
)
from stoker_sdk.probes import Probes, check_deploy_deadline, check_start_timeout, parse_probes
from stoker_sdk.units import GO_ZERO_TIME, parse_duration, parse_quantity

ANNOTATION_PREFIX = "stoker.dev/"
"""Settings of ours travel as annotations under this prefix, so that other clients carry them untouched."""

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds a call may take when the function says nothing: the contract's `upstream_timeout` (section 4.4)."""

DEFAULT_SCALE_FACTOR: Final = 20
"""Per cent, as the contract's documentation says; its code has 10 (section 16, quirk 8)."""

DEFAULT_SCALE_TARGET: Final = 50
"""What a replica is expected to bear when its function says nothing (section 6.1)."""

DEFAULT_KEPT_REVISIONS: Final = 10
"""As many as Kubernetes keeps of a Deployment."""
_MOST_KEPT_REVISIONS: Final = 100

LOCAL_REGISTRY = "stoker.local"
"""The registry part of an image that is an artefact of this machine: `stoker.local/NAME@sha256:HEX`."""


class Resources(msgspec.Struct, omit_defaults=True, frozen=True):
    """Kubernetes quantities as the user wrote them; empty means not set."""

    memory: str = ""
    cpu: str = ""
    nvidia_gpu: str = msgspec.field(default="", name="nvidia.com/gpu")
    amd_gpu: str = msgspec.field(default="", name="amd.com/gpu")
    intel_gpu: str = msgspec.field(default="", name="intel.com/gpu")


class FunctionSpec(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """What a user asks for: the body of POST and PUT `/system/functions` (contract section 2.3)."""

    service: str
    image: str = ""
    namespace: str = ""
    env_process: str = ""
    env_vars: dict[str, str] | None = None
    constraints: list[str] | None = None
    secrets: list[str] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    limits: Resources | None = None
    requests: Resources | None = None
    read_only_root_filesystem: bool = False

    @property
    def key(self) -> FunctionKey:
        return FunctionKey(self.namespace or DEFAULT_NAMESPACE, self.service)

    @property
    def timeout(self) -> float:
        """Seconds that one call may take, in all: ours, else the watchdog's `exec_timeout`, else a minute."""
        text = self.setting("timeout") or (self.env_vars or {}).get("exec_timeout", "")
        seconds = parse_duration(text, "timeout") if text else DEFAULT_TIMEOUT
        return seconds or DEFAULT_TIMEOUT

    @property
    def concurrency(self) -> int:
        """Calls that one replica runs at the same time; 0 means no limit."""
        return _whole_number(self.setting("concurrency"), "concurrency")

    @property
    def min_replicas(self) -> int:
        return _whole_number((self.labels or {}).get("com.openfaas.scale.min", ""), "com.openfaas.scale.min") or 1

    @property
    def max_replicas(self) -> int:
        label = (self.labels or {}).get("com.openfaas.scale.max", "")
        return _whole_number(label, "com.openfaas.scale.max") or max(20, self.min_replicas)

    @property
    def scale_factor(self) -> int:
        """By how many percent of the most replicas one alert scales up; 0: alerts do not scale (section 6.2)."""
        text = (self.labels or {}).get("com.openfaas.scale.factor", "")
        factor = _whole_number(text, "com.openfaas.scale.factor") if text else DEFAULT_SCALE_FACTOR
        if factor > 100:
            raise BadInput(f"com.openfaas.scale.factor is {factor}: write a percentage, 0 to 100")
        return factor

    @property
    def scale_type(self) -> str:
        """What the load of a replica is measured in (section 6.1)."""
        return (self.labels or {}).get("com.openfaas.scale.type", "") or "rps"

    @property
    def scale_target(self) -> int:
        """The load that one replica shall have, in units of `scale_type`."""
        label = (self.labels or {}).get("com.openfaas.scale.target", "")
        return _whole_number(label, "com.openfaas.scale.target") or DEFAULT_SCALE_TARGET

    @property
    def start_timeout(self) -> float:
        """Seconds that a replica may take until it is ready."""
        return check_start_timeout(self.setting("start_timeout"))

    @property
    def deploy_deadline(self) -> float:
        """Seconds after which a rollout on a cluster that has made no progress has failed; 0: as the platform says."""
        return check_deploy_deadline(self.setting("deploy_deadline"))

    @property
    def kept_revisions(self) -> int:
        """How many revisions are kept of it, the one that is asked for now included."""
        text = self.setting("revisions")
        number = _whole_number(text, "revisions") if text else DEFAULT_KEPT_REVISIONS
        if not 2 <= number <= _MOST_KEPT_REVISIONS:
            raise BadInput(f"revisions is {number}: keep 2 to {_MOST_KEPT_REVISIONS}")
        return number

    @property
    def result_seconds(self) -> float:
        """How long the answers of its async calls are kept; 0: they are not."""
        text = self.setting("result")
        return check_keep(text) if text else 0.0

    @property
    def is_idempotent(self) -> bool:
        """Whether synchronous calls with an `Idempotency-Key` run once."""
        return check_idempotent(self.setting("idempotent"))

    @property
    def probes(self) -> Probes:
        """How its replicas' health is asked for, and what becomes of them."""
        return parse_probes(self.annotations)

    @property
    def connections(self) -> int:
        """The budget of connections to other systems over all replicas; 0 means that there is none."""
        return _whole_number(self.setting("connections"), "connections")

    @property
    def connection_share(self) -> int:
        """What one replica may open of the budget. One place more than replicas is kept, so that an update can start
        a new one before an old one leaves; a share is never zero, and there may then be fewer replicas than allowed.
        """
        budget = self.connections
        return max(1, budget // (self.max_replicas + 1)) if budget else 0

    @property
    def most_replicas(self) -> int:
        """How many replicas there may be at a time, those that start or leave included; 0 means no limit by budget."""
        share = self.connection_share
        return self.connections // share if share else 0

    def setting(self, name: str) -> str:
        """The value of one of our own settings, or an empty string."""
        return (self.annotations or {}).get(ANNOTATION_PREFIX + name, "")

    def check(self) -> None:
        """Raise `BadInput` for the first value that cannot be used, in the contract's order (section 2.4)."""
        if not self.service:
            raise BadInput("service: is required")
        check_function_name(self.service)
        if not self.image:
            raise BadInput("image: is required")
        check_namespace(self.namespace or DEFAULT_NAMESPACE)
        for key, value in (self.labels or {}).items():
            check_label(key, value)
        for key in self.annotations or {}:
            check_qualified_key(key, "annotation")
        for key, value in (self.env_vars or {}).items():
            check_environment_key(key)
            if "\0" in value:
                raise BadInput(f"environment variable {key!r} holds a NUL character, which no process can be given")
        for name in self.secrets or []:
            check_secret_name(name)
        check_visibility(self.setting("visibility"))
        self._check_numbers()

    def _check_numbers(self) -> None:
        for what, resources in (("limits", self.limits), ("requests", self.requests)):
            if resources and resources.memory:
                parse_quantity(resources.memory, f"{what}.memory")
            if resources and resources.cpu:
                parse_quantity(resources.cpu, f"{what}.cpu")
        _ = self.timeout, self.concurrency, self.scale_factor, self.scale_target, self.start_timeout, self.probes
        _ = self.result_seconds, self.is_idempotent, self.kept_revisions, self.deploy_deadline
        if self.min_replicas > self.max_replicas:
            raise BadInput(
                f"com.openfaas.scale.min is {self.min_replicas}, more than com.openfaas.scale.max "
                f"({self.max_replicas}): raise the one or lower the other"
            )
        if 0 < self.connections < self.min_replicas:
            raise BadInput(
                f"connections is {self.connections}, and com.openfaas.scale.min asks for {self.min_replicas} replicas: "
                f"at one connection each that is {self.min_replicas - self.connections} too few; raise the one or "
                "lower the other"
            )
        if self.setting("connections") and not self.connections:
            raise BadInput("connections is 0, with which no replica could start: write at least 1, or leave it out")


class Instance(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One replica as `describe` shows it. `state` is starting, ready, unhealthy, draining or gone; `message` says why
    it is unhealthy.
    """

    id: str
    state: str
    pid: int = 0
    started_at: str = ""
    message: str = ""


class RolledBack(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """A deploy that was undone by the platform: `revision` failed, and the content of `to` is live again.

    `message`, `code` and `output` say why it failed, as they did in its condition.
    """

    revision: int
    to: int
    message: str = ""
    code: str = ""
    output: list[str] = []


class Condition(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """Ours, in the answer's `stoker` key: how the last deploy went. Other clients ignore it.

    `state` is deploying, ready, failed (the revision before serves on, where there is one) or zero (scaled to zero).
    `message` says why it failed, in one or two lines, and `code` the same as `X-Stoker-Error` does; `output` holds the
    last lines that the replica printed. `faults` are the latest of each kind that calls met, the newest first. `urls`
    are the public addresses that the function has, its own first; `refused_urls` say which it does not have, and why.

    `rollback_to` is the revision that is put back if a failed one does not get ready after all (0: it stays failed, and
    nothing more happens); once that is done, `rolled_back` tells of it until the next deploy.
    """

    state: str
    revision: int
    serving: int = 0
    message: str = ""
    code: str = ""
    faults: list[Fault] = []
    output: list[str] = []
    limits: str = ""
    timeout: str = ""
    restarts: int = 0
    rollback_to: int = 0
    rolled_back: RolledBack | None = None
    instances: list[Instance] = []
    urls: list[str] = []
    refused_urls: list[str] = []


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """CPU in thousandths of a core over all replicas, and memory in bytes, summed (contract section 2.3)."""

    cpu: float
    total_memory_bytes: float


class FunctionStatus(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """What the platform answers for one function (contract section 2.3)."""

    name: str
    image: str
    namespace: str
    env_process: str = ""
    env_vars: dict[str, str] | None = None
    constraints: list[str] | None = None
    secrets: list[str] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    limits: Resources | None = None
    requests: Resources | None = None
    read_only_root_filesystem: bool = False
    invocation_count: float = 0.0
    replicas: int = 0
    available_replicas: int = 0
    # A factory, because the contract always prints the field, and plain defaults are omitted.
    created_at: str = msgspec.field(default_factory=lambda: GO_ZERO_TIME)
    usage: Usage | None = None
    stoker: Condition | None = None

    @classmethod
    def of(cls, spec: FunctionSpec, **facts: Any) -> FunctionStatus:
        """What was asked for, verbatim, and `facts`: the fields that only the platform knows."""
        asked = {name: value for name, value in msgspec.structs.asdict(spec).items() if name in cls.__struct_fields__}
        return cls(**(asked | {"name": spec.service, "namespace": spec.key.namespace} | facts))


def _whole_number(text: str, what: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadInput(f"{what} is {text[:40]!r}: write a whole number")
    return int(text)
