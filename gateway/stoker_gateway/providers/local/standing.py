"""How a function stands, as lists and `describe` tell it: worked out from plain values, with no influence on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stoker_gateway.providers.local.plan import Replica, Version, affordable
from stoker_gateway.providers.local.records import Record
from stoker_sdk.function import Condition, FunctionStatus, Instance
from stoker_sdk.units import format_duration


@dataclass(frozen=True)
class Standing:
    """`trouble` is why replicas that once served cannot be started now, and `code` its code."""

    record: Record
    wanted: Version
    serving: Version | None
    replicas: Sequence[Replica]
    trouble: str
    code: str
    restarts: int

    def status(self) -> FunctionStatus:
        return FunctionStatus.of(
            self.record.spec,
            replicas=self._affordable,
            available_replicas=self._ready,
            created_at=self.record.created_at,
            stoker=self._condition(),
        )

    def _condition(self) -> Condition:
        record = self.record
        return Condition(
            state=self._state,
            revision=record.revision,
            serving=self.serving.revision if self.serving and self._ready else 0,
            message=record.failure or self.trouble or self._health_note or self._budget_note,
            code=self._code,
            output=record.output,
            limits=next((replica.limits for replica in self.replicas if replica.limits), ""),
            timeout=format_duration(self.wanted.spec.timeout),
            restarts=self.restarts,
            instances=[
                Instance(id=one.id, state=one.state, pid=one.pid, started_at=one.started_at, message=one.trouble)
                for one in self.replicas
            ],
        )

    @property
    def _ready(self) -> int:
        return sum(replica.state == "ready" for replica in self.replicas)

    @property
    def _affordable(self) -> int:
        return affordable(self.wanted.spec, self.record.replicas)

    @property
    def _state(self) -> str:
        current = [replica for replica in self.replicas if replica.version is self.wanted]
        if self.record.failure:
            return "failed"
        if self.record.replicas == 0:
            return "zero"
        if sum(replica.state == "ready" for replica in current) >= self._affordable:
            return "ready"
        return "unhealthy" if self.serving is self.wanted and self._health_note else "deploying"

    @property
    def _code(self) -> str:
        if self.record.failure:
            return self.record.failure_code
        if self.trouble:
            return self.code
        return "unhealthy" if self._health_note else ""

    @property
    def _health_note(self) -> str:
        live = [replica for replica in self.replicas if replica.state != "draining"]
        sick = [replica for replica in live if replica.state == "unhealthy"]
        return f"{len(sick)} of {len(live)} replicas unhealthy: {sick[0].trouble}" if sick else ""

    @property
    def _budget_note(self) -> str:
        spec, asked = self.wanted.spec, self.record.replicas
        if asked == self._affordable:
            return ""
        return (
            f"{asked} replicas are asked for, and {spec.connections} connections are enough for {spec.most_replicas} "
            f"with {spec.connection_share} each: raise connections, or lower com.openfaas.scale.max"
        )
