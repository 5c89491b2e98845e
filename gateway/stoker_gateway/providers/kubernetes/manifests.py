"""From a function to the Deployment and the Service that run it: pure values, with nothing asked of the cluster.

Names, labels, ports, probes, secrets as files and the rest are those of the contract's section 10. The answer to the
user must show what was asked for, verbatim, so the whole spec is kept beside them in an annotation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stoker_gateway.providers.container import HEALTH_PATH, PORT, SECRETS_PATH, check_paths, environment, ready_path
from stoker_gateway.providers.kubernetes.drift import packed_record
from stoker_gateway.providers.kubernetes.history import packed
from stoker_gateway.providers.kubernetes.objects import Manifest
from stoker_gateway.providers.kubernetes.settings import DEFAULT_DEPLOY_DEADLINE
from stoker_gateway.revisions import Kept
from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources, RolledBack
from stoker_sdk.names import FunctionKey, check_qualified_key
from stoker_sdk.units import parse_duration

FUNCTION_LABEL: Final = "faas_function"
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "stoker"
SELECTOR: Final = f"{MANAGED_LABEL}={MANAGER},{FUNCTION_LABEL}"
"""Which objects are ours."""

OURS: Final = "internal.stoker.dev/"
"""Not a user's to set: his annotations of this prefix go nowhere but into the spec."""
SPEC: Final = "internal.stoker.dev/spec"
IDENTITY: Final = "internal.stoker.dev/id"
REVISION: Final = "internal.stoker.dev/revision"
RESTART: Final = "internal.stoker.dev/restart"
PINNED: Final = "internal.stoker.dev/image"
HISTORY: Final = "internal.stoker.dev/history"
RECORD: Final = "internal.stoker.dev/record"
ROLLED_BACK: Final = "internal.stoker.dev/rolled-back"

MAX_HISTORY: Final = 64 * 1024
MAX_RECORD: Final = 32 * 1024
MAX_ANNOTATIONS: Final = 256 * 1024
"""Bytes: of a history, of a record, and of all annotations of an object together, which is Kubernetes' own limit."""

PULL_SECRET_TYPES: Final = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")

DRAIN_DELAY: Final = "5s"
"""How long a pod that ends takes new calls: a proxy far away may choose it until it hears that it has gone."""
_CLOSING_SECONDS = 10
_STARTING_SECONDS = 30.0
"""What a pod takes beside its `start_timeout`: a place, its image."""
_SERVICE_ACCOUNT = "com.openfaas.serviceaccount"
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Settings:
    """What an operator decides for all functions. `run_as_user` None leaves the user id to the cluster (OpenShift).

    `deploy_deadline`, in seconds, is for functions that name none of their own.
    """

    run_as_user: int | None = 12000
    deploy_deadline: float = DEFAULT_DEPLOY_DEADLINE


DEFAULTS: Final = Settings()


@dataclass(frozen=True)
class Mounts:
    """The secrets of a function by what they are for: those that fetch its image, and those that it reads as files."""

    pull: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Owner:
    """The object with which a function's objects go; it has the function's name and namespace."""

    api: str
    kind: str
    uid: str


@dataclass(frozen=True)
class Release:
    """What is rolled out: the function, the image as the nodes are to fetch it, its secrets, and which one it is.

    `identity` is given once, when the function is created, so that what a removed one left is not taken for its own.
    `history` ends with this revision. `owner` is the Function resource that asks for it, if there is one. `pods_of` is
    set where the pods of an earlier revision are to serve on as they are, and `rolled_back` says why.
    """

    spec: FunctionSpec
    image: str
    pinned: bool
    mounts: Mounts
    identity: str
    revision: int
    replicas: int
    restart: str = ""
    history: Sequence[Kept] = field(default_factory=tuple)
    pods_of: int = 0
    rolled_back: RolledBack | None = None
    owner: Owner | None = None


def mounts_of(secrets: Sequence[tuple[str, str, Sequence[str]]]) -> Mounts:
    """Sort secrets, each `(name, type, keys)`. Raises `BadInput` when two of them would be the same file."""
    owner: dict[str, str] = {}
    for name, kind, keys in secrets:
        for key in () if kind in PULL_SECRET_TYPES else keys:
            other = owner.setdefault(key, name)
            if other != name:
                raise BadInput(
                    f"secrets {other!r} and {name!r} both hold the key {key!r}, and would be one file in "
                    f"{SECRETS_PATH}: rename the key in one of them"
                )
    return Mounts(
        pull=tuple(name for name, kind, _ in secrets if kind in PULL_SECRET_TYPES),
        files=tuple(name for name, kind, _ in secrets if kind not in PULL_SECRET_TYPES),
    )


def deployment(release: Release, settings: Settings = DEFAULTS) -> Manifest:
    """The Deployment. Raises `BadInput` for what Kubernetes cannot hold."""
    spec = release.spec
    check_spec(spec)
    marks = {IDENTITY: release.identity, REVISION: str(release.revision)}
    pods = {IDENTITY: release.identity, REVISION: str(release.pods_of or release.revision)}
    template = {
        "metadata": {
            "labels": dict(spec.labels or {}) | _labels(spec),
            "annotations": _annotations(spec) | pods | ({RESTART: release.restart} if release.restart else {}),
        },
        "spec": _pod(release, settings),
    }
    stored = {SPEC: msgspec.json.encode(spec).decode(), PINNED: release.image}
    if release.rolled_back is not None:
        stored[ROLLED_BACK] = msgspec.json.encode(release.rolled_back).decode()
    annotations = _annotations(spec) | marks | stored
    annotations[HISTORY] = packed(release.history, _room(annotations, HISTORY, MAX_HISTORY))
    made: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(spec, annotations) | _owners(spec, release.owner),
        "spec": {
            "replicas": release.replicas,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": math.ceil(deadline_seconds(spec, settings)),
            "selector": {"matchLabels": {FUNCTION_LABEL: spec.service}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }
    if record := packed_record(made, _room(annotations, RECORD, MAX_RECORD), without=RESTART):
        made["metadata"]["annotations"][RECORD] = record
    return made


def service(spec: FunctionSpec, owner: Owner | None = None) -> Manifest:
    """The Service, for callers inside the cluster; our own calls go to pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(spec, _annotations(spec)) | _owners(spec, owner),
        "spec": {
            "type": "ClusterIP",
            "selector": {FUNCTION_LABEL: spec.service},
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT, "targetPort": PORT}],
        },
    }


def check_spec(spec: FunctionSpec) -> None:
    """Raise `BadInput` for what is fine on one machine and cannot be held by Kubernetes."""
    if not _SERVICE_NAME.fullmatch(spec.service):
        raise BadInput(f"function name {spec.service!r} is not allowed on Kubernetes: begin it with a letter")
    check_paths(spec)
    _node_selector(spec)


def deadline_seconds(spec: FunctionSpec, settings: Settings = DEFAULTS) -> float:
    """After how long without progress a rollout has failed: its own word, or long enough for one replica's start."""
    return spec.deploy_deadline or max(settings.deploy_deadline, spec.start_timeout + _STARTING_SECONDS)


def grace_seconds(spec: FunctionSpec) -> int:
    """How long a pod may take to end: its drain, its longest call, and closing what it has open."""
    variables = environment(spec, DRAIN_DELAY)
    drain = _seconds(variables["healthcheck_interval"])
    return math.ceil(drain + max(spec.timeout, _seconds(variables["write_timeout"])) + _CLOSING_SECONDS)


def _room(annotations: Mapping[str, str], name: str, most: int) -> int:
    """Bytes that are left for another annotation beside these: the function itself comes first."""
    taken = len(name) + sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    return min(most, MAX_ANNOTATIONS - taken)


def _metadata(spec: FunctionSpec, annotations: Mapping[str, str]) -> Manifest:
    return {
        "name": spec.service,
        "namespace": spec.key.namespace,
        "labels": _labels(spec),
        "annotations": dict(annotations),
    }


def _owners(spec: FunctionSpec, owner: Owner | None) -> Manifest:
    if owner is None:
        return {}
    reference = {"apiVersion": owner.api, "kind": owner.kind, "name": spec.service, "uid": owner.uid}
    return {"ownerReferences": [reference | {"controller": True}]}


def _labels(spec: FunctionSpec) -> dict[str, str]:
    return {FUNCTION_LABEL: spec.service, MANAGED_LABEL: MANAGER}


def _annotations(spec: FunctionSpec) -> dict[str, str]:
    given = {key: value for key, value in (spec.annotations or {}).items() if not key.startswith(OURS)}
    return {"prometheus.io.scrape": "false"} | given


def _pod(release: Release, settings: Settings) -> Manifest:
    spec, mounts = release.spec, release.mounts
    account = (spec.annotations or {}).get(_SERVICE_ACCOUNT, "")
    volumes, volume_mounts = _volumes(spec, mounts)
    user = {} if settings.run_as_user is None else {"runAsUser": settings.run_as_user}
    pod: Manifest = {
        "containers": [_container(release, volume_mounts)],
        "automountServiceAccountToken": bool(account),
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} | user,
        "terminationGracePeriodSeconds": grace_seconds(spec),
    }
    if account:
        pod["serviceAccountName"] = account
    if volumes:
        pod["volumes"] = volumes
    if mounts.pull:
        pod["imagePullSecrets"] = [{"name": name} for name in mounts.pull]
    if selector := _node_selector(spec):
        pod["nodeSelector"] = selector
    return pod


def _container(release: Release, mounts: list[Manifest]) -> Manifest:
    spec = release.spec
    container: Manifest = {
        "name": spec.service,
        "image": release.image,
        "imagePullPolicy": "IfNotPresent" if release.pinned else "Always",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _variables(spec),
        "resources": _resources(spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": spec.read_only_root_filesystem,
        },
        # The last lines of a container that failed are then in its pod's status, where the watch brings them.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(spec),
    }
    if mounts:
        container["volumeMounts"] = mounts
    return container


def _variables(spec: FunctionSpec) -> list[Manifest]:
    given = [{"name": name, "value": value} for name, value in sorted(environment(spec, DRAIN_DELAY).items())]
    return [*given, {"name": "STOKER_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


def _seconds(text: str) -> float:
    """As the watchdogs read it: what is no duration is their default."""
    try:
        return parse_duration(text)
    except BadInput:
        return 30.0


def _resources(spec: FunctionSpec) -> Manifest:
    """Quantities as they were given. Devices are limits only, which is how Kubernetes wants them."""
    limits, requests = _quantities(spec.limits), _quantities(spec.requests)
    devices = {name: value for name, value in requests.items() if "/" in name}
    requests = {name: value for name, value in requests.items() if "/" not in name}
    sections = {"limits": devices | limits, "requests": requests}
    return {name: section for name, section in sections.items() if section}


def _quantities(resources: Resources | None) -> dict[str, str]:
    given: dict[str, Any] = msgspec.to_builtins(resources) if resources else {}
    return {name: str(value) for name, value in given.items() if value}


def _probes(spec: FunctionSpec) -> Manifest:
    """Readiness decides who gets calls, liveness who is started anew, and neither begins before it listens."""
    annotations, probes = spec.annotations or {}, spec.probes
    period = max(1, round(probes.period))
    ready = _probe(ready_path(spec), period, probes.timeout) | {
        "initialDelaySeconds": round(probes.delay),
        "failureThreshold": probes.failures,
        "successThreshold": probes.successes,
    }
    health = annotations.get(HEALTH_PATH) or "/_/health"
    started = _probe(health, 1, probes.timeout) | {"failureThreshold": math.ceil(spec.start_timeout)}
    if not probes.replace_after:
        return {"readinessProbe": ready, "startupProbe": started}
    alive = _probe(health, period, probes.timeout) | {
        "failureThreshold": max(1, math.ceil(probes.replace_after / period))
    }
    return {"readinessProbe": ready, "startupProbe": started, "livenessProbe": alive}


def _probe(path: str, period: int, timeout: float) -> Manifest:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": max(1, round(timeout)),
    }


def _volumes(spec: FunctionSpec, mounts: Mounts) -> tuple[list[Manifest], list[Manifest]]:
    volumes: list[Manifest] = []
    inside: list[Manifest] = []
    if spec.read_only_root_filesystem:
        volumes.append({"name": "temp", "emptyDir": {}})
        inside.append({"name": "temp", "mountPath": "/tmp"})
    if mounts.files:
        sources = [{"secret": {"name": name}} for name in mounts.files]
        volumes.append({"name": "projected-secrets", "projected": {"sources": sources}})
        inside.append({"name": "projected-secrets", "mountPath": SECRETS_PATH, "readOnly": True})
    return volumes, inside


def _node_selector(spec: FunctionSpec) -> dict[str, str]:
    """`key=value` each. Anything else is refused: a function on the wrong node is worse than one that is not there."""
    selector = {}
    for constraint in spec.constraints or []:
        key, _, value = constraint.partition("=")
        if constraint.count("=") != 1:
            raise BadInput(f"constraint {constraint[:80]!r} cannot be used: write LABEL=VALUE, as the nodes have it")
        check_qualified_key(key, "constraint")
        selector[key] = value
    return selector


def key_of(labels: Mapping[str, str] | None, namespace: str) -> FunctionKey:
    """Whose a Deployment or pod is."""
    return FunctionKey(namespace, (labels or {}).get(FUNCTION_LABEL, ""))
