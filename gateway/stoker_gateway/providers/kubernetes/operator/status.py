"""The status of a Function resource, from how the function stands and what was in the way: pure values.

Two conditions, as tools of Kubernetes read them: `Ready`, and `Stalled`, which is true when nothing more will happen
until somebody changes something.
"""

from __future__ import annotations

from typing import Any, Final

from stoker_gateway.providers.kubernetes.errors import Forbidden
from stoker_gateway.providers.kubernetes.objects import Function, Manifest
from stoker_gateway.providers.kubernetes.operator.resource import wanted
from stoker_gateway.providers.kubernetes.releases import Taken
from stoker_gateway.providers.kubernetes.standing import Standing
from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import BadInput, StokerError, Unavailable
from stoker_sdk.function import Condition, RolledBack

_REASONS: Final = {"ready": "Running", "zero": "ScaledToZero", "deploying": "Deploying", "unhealthy": "Unhealthy"}
_ERRORS: Final = ((Taken, "NameTaken"), (BadInput, "Invalid"), (Unavailable, "Unavailable"), (Forbidden, "Forbidden"))


def status_of(function: Function, standing: Standing | None, error: StokerError | None, now: str) -> Manifest:
    """What the resource's status is to be. `standing` is None while there is no Deployment of it.

    What is left out is to stay as it is: a function that comes back has its history from there.
    """
    before = function.status if isinstance(function.status, dict) else {}
    generation = function.metadata.generation
    status: Manifest = {"observedGeneration": generation, "availableReplicas": 0}
    if standing is not None:
        answer = standing.status()
        status |= {
            "revision": standing.stored.revision,
            "image": standing.stored.image,
            "history": standing.stored.packed_history,
            "replicas": answer.replicas,
            "availableReplicas": answer.available_replicas,
            "unavailableReplicas": max(0, answer.replicas - answer.available_replicas),
        }
    found = _conditions(standing.status().stoker if standing else None, _undone(function, standing), error)
    status["conditions"] = [_dated(one, _known(before, one["type"]), generation, now) for one in found]
    return status


def differs(function: Function, status: Manifest) -> bool:
    """Whether there is anything to write."""
    before = function.status if isinstance(function.status, dict) else {}
    return any(before.get(name) != value for name, value in status.items())


def set_back_before(function: Function) -> int:
    """How often something was set back, as its status says."""
    before = function.status.get("setBack") if isinstance(function.status, dict) else None
    return before if isinstance(before, int) else 0


def reason_of(error: StokerError) -> str:
    """In the one word that conditions and events have."""
    return next((reason for kind, reason in _ERRORS if isinstance(error, kind)), "Failed")


def told(function: Function) -> str:
    """Why it is not ready, as its status says."""
    before = function.status if isinstance(function.status, dict) else {}
    return str(_known(before, "Ready").get("message") or "")


def _undone(function: Function, standing: Standing | None) -> RolledBack | None:
    """What became of what the resource asks for, when it failed and was undone."""
    try:
        if standing is None or not wanted(function).is_given_up(standing.stored):
            return None
    except BadInput:
        return None
    return standing.stored.rolled_back


def _conditions(
    condition: Condition | None, undone: RolledBack | None, error: StokerError | None
) -> list[dict[str, Any]]:
    if error is not None:
        reason = reason_of(error)
        stalled = reason != "Unavailable"
        return _pair("False", stalled, reason, one_line(str(error)))
    if condition is None:
        return _pair("False", False, "Deploying", "")
    if undone is not None:
        message = f"revision {undone.revision} failed, and {undone.to} is put back: {undone.message}"
        return _pair("False", True, "RolledBack", one_line(message))
    reason = _REASONS.get(condition.state) or _camel(condition.code)
    ready = "True" if condition.state in ("ready", "zero") else "False"
    return _pair(ready, condition.state == "failed", reason, one_line(condition.message))


def _pair(ready: str, stalled: bool, reason: str, message: str) -> list[dict[str, Any]]:
    told = {"reason": reason} | ({"message": message} if message else {})
    return [
        {"type": "Ready", "status": ready} | told,
        {"type": "Stalled"} | ({"status": "True"} | told if stalled else {"status": "False", "reason": "NotStalled"}),
    ]


def _dated(condition: dict[str, Any], known: dict[str, Any], generation: int, now: str) -> dict[str, Any]:
    """With the time since when its status is this."""
    same = known.get("status") == condition["status"] and known.get("lastTransitionTime")
    return condition | {"observedGeneration": generation, "lastTransitionTime": same or now}


def _known(status: dict[str, Any], type: str) -> dict[str, Any]:
    conditions = status.get("conditions")
    found = conditions if isinstance(conditions, list) else []
    return next((one for one in found if isinstance(one, dict) and one.get("type") == type), {})


def _camel(code: str) -> str:
    """`image-pull` of `faults` as conditions have it: `ImagePull`."""
    return "".join(part.capitalize() for part in code.split("-")) or "Failed"
