"""From a replica to the container that runs it: pure values, as the Engine's API takes them.

Who may do what is as on a cluster: no capability, no new privileges, a user of its own, secrets as files, a network on
which it meets nobody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker_gateway.providers.container import SECRETS_PATH, environment
from stoker_gateway.providers.local.launch import limits_of
from stoker_gateway.providers.local.plan import Version
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

PREFIX: Final = "stoker.dev/"
PLATFORM: Final = PREFIX + "platform"
START: Final = PREFIX + "start"
ID: Final = PREFIX + "replica"
NAMESPACE: Final = PREFIX + "namespace"
FUNCTION: Final = PREFIX + "function"
REVISION: Final = PREFIX + "revision"
CONNECTIONS: Final = PREFIX + "connections"
IMAGE: Final = PREFIX + "image"

DRAIN_DELAY: Final = "0s"
"""Proxies have acknowledged before a replica is asked to leave."""
_MOST_PROCESSES: Final = 4096
_MOST_BYTES: Final = 2**62
_LOGS: Final = {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "2"}}
"""Only what has not been read yet: our own log files are those that last."""


@dataclass(frozen=True)
class Place:
    """Whose containers these are: `platform` is a data folder's for ever, `start` one of its servers'."""

    platform: str
    start: str

    @property
    def label(self) -> str:
        return f"{PLATFORM}={self.platform}"

    @property
    def network(self) -> str:
        return f"stoker-{self.platform}"

    def container(self, id: str) -> str:
        return f"stoker-{self.platform}-{id}"


def body_of(
    id: str, version: Version, place: Place, *, network: str, user: str, secrets: Path | None
) -> dict[str, Any]:
    """What `/containers/create` takes. `secrets` is the folder of those that it reads, if there are any."""
    spec = version.spec
    return {
        "Image": version.image,
        "Hostname": id[-63:].lstrip("-"),
        "User": user,
        "Env": [f"{name}={value}" for name, value in sorted(_environment(spec, id).items())],
        "Labels": dict(spec.labels or {}) | _labels(id, version, place),
        "Healthcheck": {"Test": ["NONE"]},  # we ask ourselves
        "HostConfig": {
            "NetworkMode": network,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},  # the growing pause is ours
            "PidsLimit": _MOST_PROCESSES,
            "LogConfig": _LOGS,
            **_root(spec),
            **_limits(spec),
            **_mounts(secrets),
        },
    }


def key_of(labels: dict[str, str]) -> FunctionKey:
    return FunctionKey(labels.get(NAMESPACE, ""), labels.get(FUNCTION, ""))


def _environment(spec: FunctionSpec, id: str) -> dict[str, str]:
    return environment(spec, DRAIN_DELAY) | {"STOKER_REPLICA": id}


def _labels(id: str, version: Version, place: Place) -> dict[str, str]:
    spec = version.spec
    return {
        PLATFORM: place.platform,
        START: place.start,
        ID: id,
        NAMESPACE: spec.key.namespace,
        FUNCTION: spec.service,
        REVISION: str(version.revision),
        CONNECTIONS: str(spec.connection_share),
        IMAGE: version.image,
    }


def _root(spec: FunctionSpec) -> dict[str, Any]:
    if not spec.read_only_root_filesystem:
        return {}
    return {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"}}


def _limits(spec: FunctionSpec) -> dict[str, Any]:
    """Never more than there is: the Engine refuses that, and a cluster's node does not."""
    limits = limits_of(spec)
    asked: dict[str, Any] = {}
    if limits.memory:
        memory = min(limits.memory, _MOST_BYTES)
        asked |= {"Memory": memory, "MemorySwap": memory}
    if limits.cores:
        asked["NanoCpus"] = int(min(limits.cores, float(os.cpu_count() or 1)) * 1e9)
    return asked


def _mounts(secrets: Path | None) -> dict[str, Any]:
    if secrets is None:
        return {}
    return {"Mounts": [{"Type": "bind", "Source": str(secrets), "Target": SECRETS_PATH, "ReadOnly": True}]}
