"""What to do next about one function's replicas: a pure decision on plain values.

Surge first: all replicas of the wanted version are started beside the old ones, and only when enough of them are ready
do the others drain. So neither a deploy nor a failed deploy takes anything away from callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from stoker_gateway.providers.local.artefacts import Artefact
from stoker_sdk.function import FunctionSpec

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, eq=False)
class Version:
    """What replicas are made of: a revision's spec and artefact. A restart makes a new version of the same revision."""

    revision: int
    spec: FunctionSpec
    digest: str
    artefact: Artefact


@dataclass(eq=False)
class Replica:
    """One replica of one version, as the provider knows it. Times are of the monotonic clock."""

    id: str
    version: Version
    socket: str
    since: float
    started_at: str
    state: State = "starting"
    pid: int = 0
    limits: str = ""

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"


@dataclass(frozen=True)
class Plan:
    """How many replicas to start, and which to drain. `settled`: nothing is left to wait for."""

    start: int = 0
    drain: Sequence[Replica] = field(default=())
    settled: bool = True


def plan(version: Version, wanted: int, replicas: Sequence[Replica]) -> Plan:
    """The next step towards `wanted` ready replicas of `version` and none of any other."""
    live = [replica for replica in replicas if replica.state != "draining"]
    current = [replica for replica in live if replica.version is version]
    others = [replica for replica in live if replica.version is not version]
    ready = sum(replica.state == "ready" for replica in current)
    if len(current) < wanted:
        return Plan(start=wanted - len(current), settled=False)
    # The youngest go first, those that are not ready yet before all others.
    by_worth = sorted(current, key=lambda replica: (replica.state == "ready", -replica.since))
    surplus = by_worth[: len(current) - wanted]
    if ready >= wanted:
        surplus = [*surplus, *others]
    return Plan(drain=surplus, settled=ready >= wanted and not surplus)


def next_delay(failures: int) -> float:
    """Seconds to wait before a replica that ended unasked is started again: at once, then growing to half a minute."""
    return 0.0 if failures <= 1 else float(min(30.0, 0.25 * 2.0 ** (failures - 2)))
