"""What to do next about one function's replicas: a pure decision on plain values.

Surge first: all replicas of the wanted version are started beside the old ones, and only when enough of them are ready
do the others drain. So neither a deploy nor a failed deploy takes anything away from callers.

Where a budget of connections leaves no room for that, one old replica at a time gives its place to a new one, which
must be ready before the next goes. What drains still holds its connections, and counts until it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from stoker_gateway.providers.local.artefacts import Artefact
from stoker_sdk.function import FunctionSpec

State = Literal["starting", "ready", "unhealthy", "draining"]

_WORTH = {"unhealthy": 0, "starting": 1, "ready": 2}


@dataclass(frozen=True, eq=False)
class Version:
    """What replicas are made of: a revision's spec, and its artefact, or the image of its containers.

    A restart makes a new version of the same revision.
    """

    revision: int
    spec: FunctionSpec
    digest: str
    artefact: Artefact
    image: str = ""


@dataclass(eq=False)
class Replica:
    """One replica of one version, as the provider knows it. Times are of the monotonic clock.

    `since` is when it got into its state, `share` how many connections it may open, `trouble` why it is unhealthy, or
    what its start waits for.
    """

    id: str
    version: Version
    address: str
    since: float
    started_at: str
    state: State = "starting"
    pid: int = 0
    limits: str = ""
    share: int = 0
    trouble: str = ""
    was_ready: bool = False


@dataclass(frozen=True)
class Plan:
    """How many replicas to start, and which to drain. `settled`: nothing is left to wait for."""

    start: int = 0
    drain: Sequence[Replica] = field(default=())
    settled: bool = True


def plan(version: Version, wanted: int, replicas: Sequence[Replica], held: int = 0) -> Plan:
    """The next step towards `wanted` ready replicas of `version`, or as many as its budget allows, and no others.

    `held` is what replicas of a removed function of this name still hold of the budget.
    """
    wanted = affordable(version.spec, wanted)
    live = [replica for replica in replicas if replica.state != "draining"]
    current = [replica for replica in live if replica.version is version]
    others = [replica for replica in live if replica.version is not version]
    ready = sum(replica.state == "ready" for replica in current)
    if len(current) < wanted:
        return _grow(version, wanted - len(current), replicas, others, ready == len(current), held)
    # The youngest go first, those that are not ready yet before all others.
    surplus = _by_worth(current)[: len(current) - wanted]
    if ready >= wanted:
        surplus = [*surplus, *others]
    return Plan(drain=surplus, settled=ready >= wanted and not surplus)


def affordable(spec: FunctionSpec, wanted: int) -> int:
    """So many of the wanted replicas its budget of connections allows."""
    most = spec.most_replicas
    return min(wanted, most) if most else wanted


def _grow(
    version: Version, missing: int, replicas: Sequence[Replica], others: list[Replica], all_ready: bool, held: int
) -> Plan:
    share = version.spec.connection_share
    if not share:
        return Plan(start=missing, settled=False)
    free = version.spec.connections - held - sum(replica.share for replica in replicas)
    if free >= share:
        return Plan(start=min(missing, free // share), settled=False)
    free += held + sum(replica.share for replica in replicas if replica.state == "draining")
    drain: list[Replica] = []
    for replica in _by_worth(others) if all_ready else ():
        if free < share and replica.share:
            drain.append(replica)
            free += replica.share
    return Plan(drain=drain, settled=False)


def _by_worth(replicas: Sequence[Replica]) -> list[Replica]:
    """Those that are of the least use first."""
    return sorted(replicas, key=lambda replica: (_WORTH[replica.state], -replica.since))


def next_delay(failures: int) -> float:
    """Seconds to wait before a replica that ended unasked is started again: at once, then growing to half a minute."""
    return 0.0 if failures <= 1 else float(min(30.0, 0.25 * 2.0 ** (failures - 2)))
