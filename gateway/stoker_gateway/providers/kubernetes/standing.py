"""How a function stands on a cluster, worked out from its Deployment and its replicas; nothing is asked or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import HISTORY, IDENTITY, PINNED, RESTART, REVISION, SPEC
from stoker_gateway.providers.kubernetes.objects import Deployment
from stoker_gateway.providers.kubernetes.pods import Replica, Trouble, number, targets_of
from stoker_gateway.revisions import Kept
from stoker_gateway.routes import Route, queue_annotations
from stoker_sdk.function import Condition, FunctionSpec, FunctionStatus
from stoker_sdk.units import format_duration


@dataclass(frozen=True)
class Stored:
    """A function as its Deployment holds it. `version` is what new pods are made for."""

    spec: FunctionSpec
    identity: str
    image: str
    revision: int
    version: tuple[int, str]
    replicas: int
    created_at: str
    resource_version: str
    uid: str
    complete: bool
    """All replicas were ready once since the last change of what they are made of."""
    packed_history: str

    def revisions(self) -> list[Kept]:
        """Its history, which ends with this revision. Somebody may have changed the annotation by hand."""
        kept = [one for one in unpacked(self.packed_history) if one.spec.key == self.spec.key]
        if kept and kept[-1].number == self.revision:
            return kept
        return [Kept(self.revision, self.created_at, self.spec, self.image)]


def stored_of(deployment: Deployment) -> Stored | None:
    """None for a Deployment that does not hold a function of ours."""
    metadata, template = deployment.metadata, deployment.spec.template.metadata
    try:
        spec = msgspec.json.decode(metadata.annotation(SPEC), type=FunctionSpec)
    except msgspec.DecodeError:
        return None
    return Stored(
        spec=msgspec.structs.replace(spec, namespace=metadata.namespace),
        identity=metadata.annotation(IDENTITY),
        image=metadata.annotation(PINNED),
        revision=number(metadata.annotation(REVISION)),
        version=(number(template.annotation(REVISION)), template.annotation(RESTART)),
        replicas=deployment.spec.replicas,
        created_at=metadata.creation_timestamp or "",
        resource_version=metadata.resource_version,
        uid=metadata.uid,
        complete=_is_complete(deployment),
        packed_history=metadata.annotation(HISTORY),
    )


def _is_complete(deployment: Deployment) -> bool:
    if deployment.status.observed_generation < deployment.metadata.generation:
        return False
    conditions = deployment.status.conditions or []
    return any(one.type == "Progressing" and one.reason == "NewReplicaSetAvailable" for one in conditions)


@dataclass(frozen=True)
class Standing:
    """`replicas` are this function's, without its predecessors'; `reasons` say why unhealthy ones are so, by id."""

    stored: Stored
    replicas: Sequence[Replica]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def status(self) -> FunctionStatus:
        return FunctionStatus.of(
            self.stored.spec,
            created_at=self.stored.created_at,
            replicas=self.stored.replicas,
            available_replicas=len(targets_of(self.replicas)),
            stoker=self._condition(),
        )

    def route(self) -> Route:
        spec, targets = self.stored.spec, targets_of(self.replicas)
        annotations = queue_annotations(spec.annotations)
        route = Route(str(spec.key), spec.timeout, spec.concurrency, targets, annotations=annotations)
        if targets or self._state != "failed" or self._trouble is None:
            return route
        return msgspec.structs.replace(route, failure=self._trouble.message, failure_code=self._trouble.code)

    def _condition(self) -> Condition:
        stored, state = self.stored, self._state
        trouble = self._trouble if state not in ("zero", "ready") else None
        return Condition(
            state=state,
            revision=stored.revision,
            serving=self._serving,
            message=trouble.message if trouble else self._health_note,
            code=trouble.code if trouble else "unhealthy" if self._health_note else "",
            output=list(trouble.output) if trouble else [],
            timeout=format_duration(stored.spec.timeout),
            restarts=sum(one.restarts for one in self.replicas),
            instances=[
                one.instance(self.reasons.get(one.id, "")) for one in sorted(self.replicas, key=lambda one: one.id)
            ],
        )

    @property
    def _state(self) -> str:
        stored = self.stored
        if stored.replicas == 0:
            return "zero"
        if sum(one.state == "ready" for one in self._current) >= stored.replicas:
            return "ready"
        if self._trouble is not None and not stored.complete:
            return "failed"
        return "unhealthy" if self._health_note else "deploying"

    @property
    def _serving(self) -> int:
        """While two revisions serve, the older one: the new one is not proven."""
        return min((one.version[0] for one in self.replicas if one.state == "ready"), default=0)

    @property
    def _current(self) -> list[Replica]:
        return [one for one in self._live if one.version == self.stored.version]

    @property
    def _live(self) -> list[Replica]:
        return [one for one in self.replicas if one.state != "draining"]

    @property
    def _trouble(self) -> Trouble | None:
        troubled = [one.trouble for one in self._current if one.trouble is not None and one.state != "ready"]
        return troubled[0] if troubled else None

    @property
    def _health_note(self) -> str:
        sick = [one for one in self._live if one.state == "unhealthy"]
        if not sick:
            return ""
        reason = next((self.reasons[one.id] for one in sick if self.reasons.get(one.id)), "its readiness probe fails")
        return f"{len(sick)} of {len(self._live)} replicas unhealthy: {reason}"
