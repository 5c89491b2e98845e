"""Bodies of the control API other than functions, with the contract's field names (section 2.3)."""

from __future__ import annotations

import msgspec


class DeleteFunctionRequest(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """Body of DELETE `/system/functions`."""

    function_name: str = ""
    namespace: str = ""


class ScaleServiceRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST `/system/scale-function/NAME`."""

    service_name: str
    replicas: int
    namespace: str = ""


class Secret(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One secret. Answers never have a value. `raw_value` (base64 on the wire) wins over `value` when it is
    not empty.
    """

    name: str
    namespace: str = ""
    value: str = ""
    raw_value: bytes = b""


class FunctionNamespace(msgspec.Struct, omit_defaults=True, frozen=True):
    """One namespace, with what a user wrote on it (contract section 2.7)."""

    name: str
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Alert(msgspec.Struct, omit_defaults=True, frozen=True):
    """One alert of a group. `status` is firing or resolved; the label `function_name` says whom it is about."""

    status: str = ""
    labels: dict[str, str] | None = None


class AlertGroup(msgspec.Struct, omit_defaults=True, frozen=True):
    """What Alertmanager posts, as far as it is read here (contract section 2.3)."""

    status: str = ""
    receiver: str = ""
    alerts: list[Alert] | None = None


class LogMessage(msgspec.Struct, frozen=True):
    """One line that a function printed. `timestamp` is RFC 3339; `call`, ours, is the call id."""

    name: str
    namespace: str = ""
    instance: str = ""
    timestamp: str = ""
    text: str = ""
    call: str = ""


class BuildLine(msgspec.Struct, frozen=True):
    """One line of a build's answer: a log line, or the end: an image, or an error with its code. `seconds` says how
    much of the build's time went to which part, as far as that is told: `tests`.
    """

    log: str = ""
    image: str = ""
    cached: bool = False
    error: str = ""
    code: str = ""
    seconds: dict[str, float] = {}


class VersionInfo(msgspec.Struct, omit_defaults=True, frozen=True):
    """A release and the commit it was made from."""

    release: str = ""
    sha: str = ""
    commit_message: str = ""


class ProviderInfo(msgspec.Struct, frozen=True):
    """What runs the functions."""

    provider: str = ""
    orchestration: str = ""
    version: VersionInfo | None = None


class GatewayInfo(msgspec.Struct, frozen=True):
    """Answer of GET `/system/info`."""

    provider: ProviderInfo | None = None
    version: VersionInfo | None = None
    arch: str = ""


class CallAttempt(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One attempt of a stored call; `number` counts from 1. `status` is 0 when there was no answer.

    `lost`: what ran it, proxy or worker, ended before an answer came; `ended_at` may then be empty.
    """

    number: int
    started_at: str
    ended_at: str
    status: int = 0
    reason: str = ""
    lost: bool = False


class CallbackStatus(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """What became of a callback. `state` is waiting, delivered or failed; times are RFC 3339.

    `attempts` is how many there were, `status` and `reason` are the last one's. `next_at` is that of the next, while it
    waits for one.
    """

    state: str
    attempts: int = 0
    next_at: str = ""
    ended_at: str = ""
    status: int = 0
    reason: str = ""


class CallStatus(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One stored call. `state` is queued, running, retrying, done, dead or cancelled; times are RFC 3339.

    `status` is the function's last one, `reason` says why a call is dead, `answer` holds the first 4 KiB of a dead
    one's. `cursor` is what a listing goes on after. `replay_of` is the id of the call that this one repeats.
    `result_until` is for how long its whole answer is kept, empty if it is not. `callback` is told of one call that has
    ended, not in lists.
    """

    id: str
    function: str
    namespace: str
    state: str
    created_at: str
    started_at: str = ""
    ended_at: str = ""
    status: int = 0
    reason: str = ""
    answer: str = ""
    attempts: list[CallAttempt] = []
    cursor: str = ""
    replay_of: str = ""
    result_until: str = ""
    callback: CallbackStatus | None = None


class CallsChanged(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One step of what changes many calls: how many it has changed, and the `after` of the next step; empty: all done.

    `skipped` were not replayed because they can never run; `replayed` are new ids by old ones.
    """

    calls: int
    after: str = ""
    skipped: int = 0
    replayed: dict[str, str] = {}


class CallReplay(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """Body of POST `/system/calls/ID/replay`: what is changed of the request; None leaves the body as it was.

    Headers replace those of the same name; an empty text removes one.
    """

    headers: dict[str, str] = {}
    body: bytes | None = None


class Revision(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """One revision in a function's history. `digest` is what the image's tag meant then, where that was asked.

    `changed` names the fields that differ from the revision before, as `envVars.LEVEL`; `rollback_to` is the revision
    that this one repeats, `automatic` if the platform decided that, because the one before had failed. `serving`: calls
    go to it now, or would at zero replicas; `failed`: it could not start.
    """

    number: int
    created_at: str
    image: str
    digest: str = ""
    changed: list[str] = []
    rollback_to: int = 0
    automatic: bool = False
    serving: bool = False
    failed: bool = False


class FunctionFigures(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """How one function is used. `codes` are its ended calls by status, `running` those that run or wait.

    `p50` and `p95` are in seconds, read from a histogram: half of the calls, and 95 of 100, took no longer.
    `deployed_at` is when its last revision was asked for; `first_call_at` when that got its first call, to the second
    and empty where that is not known. Calls are counted since the platform started; times are RFC 3339.
    """

    name: str
    namespace: str
    deployed_at: str = ""
    first_call_at: str = ""
    running: int = 0
    codes: dict[str, int] = {}
    p50: float = 0.0
    p95: float = 0.0

    @property
    def calls(self) -> int:
        return sum(self.codes.values())

    @property
    def failed(self) -> int:
        """Calls that the function or the platform failed: statuses of 500 and above."""
        return sum(count for code, count in self.codes.items() if code >= "500")


class RollbackRequest(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    """Body of POST `/system/function/NAME/rollback`. `revision` 0: the newest other version that did not fail."""

    revision: int = 0
    namespace: str = ""


class Rollback(msgspec.Struct, frozen=True, rename="camel"):
    """Answer of a rollback: `revision` is asked for now, and has the content of `rollback_to`."""

    revision: int
    rollback_to: int
