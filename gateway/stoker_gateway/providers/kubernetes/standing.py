"""How a function stands on a cluster, worked out from its Deployment and its replicas; nothing is asked or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from stoker_gateway.providers.kubernetes.drift import drift_of, sum_of
from stoker_gateway.providers.kubernetes.history import unpacked
from stoker_gateway.providers.kubernetes.manifests import (
    HISTORY,
    IDENTITY,
    PINNED,
    RECORD,
    RESTART,
    REVISION,
    ROLLED_BACK,
    SPEC,
    Owner,
)
from stoker_gateway.providers.kubernetes.objects import Deployment, Metadata
from stoker_gateway.providers.kubernetes.pods import Replica, Trouble, number, targets_of
from stoker_gateway.providers.text import one_line
from stoker_gateway.revisions import Kept
from stoker_gateway.routes import Route, route_annotations
from stoker_sdk.function import Condition, FunctionSpec, FunctionStatus, RolledBack
from stoker_sdk.units import format_duration


@dataclass(frozen=True)
class Stored:
    """A function as its Deployment holds it. `version` is what new pods are made for.

    `complete`: all replicas were ready once since the last change of what they are made of; `overdue`: they were not,
    and the time for that (`deadline`, seconds) is over. `refusal` is why the cluster makes no pods, such as a quota.
    """

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
    overdue: bool
    deadline: float
    refusal: str
    rolled_back: RolledBack | None
    packed_history: str
    packed_record: str
    generation: int
    drift: tuple[str, ...]
    """The fields that somebody else has changed since."""
    drift_sum: str
    """Of what is there then, replicas apart; empty without drift."""
    owner: Owner | None = None
    """The object that asks for it, such as a Function resource."""

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
    drift = drift_of(deployment, metadata.annotation(RECORD))
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
        complete=_has(deployment, "Progressing", "True", "NewReplicaSetAvailable"),
        overdue=_has(deployment, "Progressing", "False", "ProgressDeadlineExceeded"),
        deadline=float(deployment.spec.progress_deadline_seconds),
        refusal=_refusal(deployment),
        rolled_back=_rolled_back(metadata.annotation(ROLLED_BACK)),
        packed_history=metadata.annotation(HISTORY),
        packed_record=metadata.annotation(RECORD),
        generation=metadata.generation,
        drift=drift,
        drift_sum=sum_of(deployment) if drift else "",
        owner=_owner(metadata),
    )


def _owner(metadata: Metadata) -> Owner | None:
    owners = metadata.owner_references or []
    return next((Owner(one.api_version, one.kind, one.uid) for one in owners if one.controller), None)


def _has(deployment: Deployment, type: str, status: str, reason: str) -> bool:
    """Whether the cluster says that of the Deployment as it is now."""
    if deployment.status.observed_generation < deployment.metadata.generation:
        return False
    conditions = deployment.status.conditions or []
    return any((one.type, one.status, one.reason) == (type, status, reason) for one in conditions)


def _refusal(deployment: Deployment) -> str:
    if deployment.status.observed_generation < deployment.metadata.generation:
        return ""
    refused = [one for one in deployment.status.conditions or [] if one.type == "ReplicaFailure"]
    return one_line(refused[0].message or refused[0].reason or "") if refused and refused[0].status == "True" else ""


def _rolled_back(text: str) -> RolledBack | None:
    try:
        return msgspec.json.decode(text, type=RolledBack) if text else None
    except msgspec.DecodeError:
        return None


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
        annotations = route_annotations(spec.annotations)
        route = Route(
            str(spec.key),
            spec.timeout,
            spec.concurrency,
            targets,
            annotations=annotations,
            created_at=self.stored.created_at,
            revision=self._serving,
        )
        if targets or self.state != "failed" or self.trouble is None:
            return route
        return msgspec.structs.replace(route, failure=self.trouble.message, failure_code=self.trouble.code)

    def _condition(self) -> Condition:
        stored, state = self.stored, self.state
        trouble = self.trouble if state not in ("zero", "ready") else None
        return Condition(
            state=state,
            revision=stored.revision,
            serving=self._serving,
            message=trouble.message if trouble else self._health_note,
            code=trouble.code if trouble else "unhealthy" if self._health_note else "",
            output=list(trouble.output) if trouble else [],
            timeout=format_duration(stored.spec.timeout),
            restarts=sum(one.restarts for one in self.replicas),
            rollback_to=self.fallback[0] if state == "failed" and self.fallback else 0,
            rolled_back=stored.rolled_back,
            instances=[
                one.instance(self.reasons.get(one.id, "")) for one in sorted(self.replicas, key=lambda one: one.id)
            ],
        )

    @property
    def state(self) -> str:
        stored = self.stored
        if stored.replicas == 0:
            return "zero"
        if sum(one.state == "ready" for one in self._current) >= stored.replicas:
            return "ready"
        if not stored.complete and self.trouble is not None:
            return "failed"
        return "unhealthy" if self._health_note else "deploying"

    @property
    def fallback(self) -> tuple[int, str] | None:
        """The version that serves while another revision of the function is rolled out: what there is to go back to.

        None for what the platform has itself gone back to: that is done once.
        """
        if self.stored.rolled_back is not None:
            return None
        ready = {one.version for one in self.replicas if one.state == "ready"}
        return min((one for one in ready if one[0] != self.stored.version[0]), default=None)

    @property
    def is_lost(self) -> bool:
        """The rollout has failed for good: a replica has ended twice before it was ready, or the time is over."""
        if self.state != "failed":
            return False
        return self.stored.overdue or any(one.ended_twice for one in self._current)

    @property
    def _serving(self) -> int:
        """While two revisions serve, the older one: the new one is not proven."""
        return min((self._revision_of(one) for one in self.replicas if one.state == "ready"), default=0)

    def _revision_of(self, replica: Replica) -> int:
        """After a rollback by the platform, pods are those of the revision that it went back to."""
        return self.stored.revision if replica.version == self.stored.version else replica.version[0]

    @property
    def _current(self) -> list[Replica]:
        return [one for one in self._live if one.version == self.stored.version]

    @property
    def _live(self) -> list[Replica]:
        return [one for one in self.replicas if one.state != "draining"]

    @property
    def trouble(self) -> Trouble | None:
        """Why replicas that are asked for do not get ready."""
        for one in self._current:
            if one.trouble is not None and one.state != "ready":
                return _explained(one.trouble, one.note)
        if self.stored.refusal:
            return Trouble("pod-refused", self.stored.refusal)
        if self.stored.overdue:
            note = next((f": {told}" for one in self._current if (told := one.note or _not_begun(one))), "")
            limit = format_duration(self.stored.deadline)
            return Trouble("start-timeout", f"it was not ready within {limit} (deploy_deadline){note}")
        return None

    @property
    def _health_note(self) -> str:
        sick = [one for one in self._live if one.state == "unhealthy"]
        if not sick:
            return ""
        reason = next((self.reasons[one.id] for one in sick if self.reasons.get(one.id)), "its readiness probe fails")
        return f"{len(sick)} of {len(self._live)} replicas unhealthy: {reason}"


def _not_begun(replica: Replica) -> str:
    """What only the pod's events tell, which the platform has no right to read: a volume or a network, say."""
    if replica.life or replica.state != "starting":
        return ""
    return f"its container has not begun; `kubectl describe pod -n {replica.key.namespace} {replica.id}` says why"


def _explained(trouble: Trouble, note: str) -> Trouble:
    if not (trouble.was_asked and note):
        return trouble
    return replace(trouble, message=f"{trouble.message}; it was never ready, because {note}")
