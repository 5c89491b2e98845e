"""What `/openapi.json` says of each route: written by hand, and held to the routes by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.messages import (
    AlertGroup,
    BuildLine,
    CallbackStatus,
    CallReplay,
    CallsChanged,
    CallStatus,
    DeleteFunctionRequest,
    FunctionFigures,
    FunctionNamespace,
    GatewayInfo,
    LogMessage,
    Revision,
    Rollback,
    RollbackRequest,
    ScaleServiceRequest,
    Secret,
)
from stoker_sdk.names import LABEL_PATTERN, MAX_NAME, SUBDOMAIN_PATTERN
from stoker_sdk.runs import STATES, OwnerName, RemovedRepository, RepositoryName, Run, RunLine, SealKey

STRUCTS: Final = (
    FunctionSpec,
    FunctionStatus,
    FunctionFigures,
    DeleteFunctionRequest,
    ScaleServiceRequest,
    Revision,
    Rollback,
    RollbackRequest,
    Secret,
    FunctionNamespace,
    GatewayInfo,
    LogMessage,
    AlertGroup,
    BuildLine,
    CallStatus,
    CallbackStatus,
    CallReplay,
    CallsChanged,
    Run,
    RunLine,
    RepositoryName,
    RemovedRepository,
    SealKey,
)

PURGED_STATES: Final = ["queued", "running", "dead"]
CALL_STATES: Final = ("queued", "running", "retrying", "done", "dead", "cancelled")

_NAME = {"pattern": f"^{LABEL_PATTERN}$", "maxLength": MAX_NAME}
_NAMESPACE = {"pattern": f"^({LABEL_PATTERN})?$", "maxLength": MAX_NAME}
_SECRET_NAME = {"pattern": f"^{SUBDOMAIN_PATTERN}$", "maxLength": 253}

NARROWED: Final[Mapping[str, Mapping[str, Any]]] = {
    "FunctionSpec": {"service": _NAME, "image": {"minLength": 1}, "namespace": _NAMESPACE},
    "FunctionStatus": {"name": _NAME, "namespace": _NAME, "createdAt": {"format": "date-time"}},
    "DeleteFunctionRequest": {"functionName": _NAME, "namespace": _NAMESPACE},
    "ScaleServiceRequest": {"replicas": {"minimum": 0, "maximum": 1000}, "namespace": _NAMESPACE},
    "RollbackRequest": {"revision": {"minimum": 0}, "namespace": _NAMESPACE},
    "Revision": {"createdAt": {"format": "date-time"}},
    "FunctionFigures": {"name": _NAME, "namespace": _NAME},
    "Secret": {"name": _SECRET_NAME, "namespace": _NAMESPACE},
    "FunctionNamespace": {"name": _NAME},
    "LogMessage": {"timestamp": {"format": "date-time"}},
    "CallStatus": {"state": {"enum": list(CALL_STATES)}, "createdAt": {"format": "date-time"}},
}
"""What the types cannot say, by struct and field."""

REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "FunctionSpec": ("image",),
    "FunctionStatus": ("createdAt",),
    "DeleteFunctionRequest": ("functionName",),
    "GatewayInfo": ("provider", "version", "arch"),
    "LogMessage": ("namespace", "instance", "timestamp", "text"),
}
"""Fields that have a default where they are decoded, and are always there nevertheless."""

Answers = Mapping[int, tuple[str, Any]]
"""By status: what it means, and its content: a type for JSON, a content type for text, None for no body."""

_DONE: Final[Answers] = {202: ("Accepted, and stored.", None)}
_LINES: Final = "application/x-ndjson"


@dataclass(frozen=True)
class Operation:
    """One method of one path. `errors` come beside those that every route with a body or credentials has."""

    method: str
    path: str
    id: str
    summary: str
    tag: str
    answers: Answers
    body: Any = None
    query: tuple[Mapping[str, Any], ...] = ()
    errors: tuple[int, ...] = ()
    open: bool = False
    links: Mapping[str, Any] = field(default_factory=dict)


def _query(name: str, text: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string", **schema}}


_IN_NAMESPACE = _query("namespace", "The default namespace when empty or left out.", **_NAMESPACE)
_UNLESS_IN_BODY = _query("namespace", "Where the body names none.", **_NAMESPACE)


def _to(operation: str, name: str, **more: Any) -> dict[str, Any]:
    """A link: the result of one operation is what the other takes."""
    return {"operationId": operation, "parameters": {"name": name}, **more}


_FUNCTIONS: Final = (
    Operation(
        "GET", "/system/functions", "listFunctions", "The functions of a namespace, by name.", "functions",
        {200: ("Every function, with the number of its calls.", list[FunctionStatus])},
        query=(_IN_NAMESPACE,), errors=(400,),
    ),
    Operation(
        "POST", "/system/functions", "createFunction", "Deploy a new function.", "functions", _DONE,
        body=FunctionSpec, query=(_UNLESS_IN_BODY,), errors=(409,),
        links={"describe": _to("describeFunction", "$request.body#/service")},
    ),
    Operation(
        "PUT", "/system/functions", "updateFunction", "Deploy over an existing function.", "functions", _DONE,
        body=FunctionSpec, query=(_UNLESS_IN_BODY,), errors=(404, 409),
    ),
    Operation(
        "DELETE", "/system/functions", "removeFunction", "Remove a function; its calls finish.", "functions", _DONE,
        body=DeleteFunctionRequest, query=(_UNLESS_IN_BODY,), errors=(404,),
    ),
    Operation(
        "GET", "/system/function/{name}", "describeFunction", "One function, as `NAME` or `NAME.NAMESPACE`.",
        "functions", {200: ("The function.", FunctionStatus)},
        query=(_IN_NAMESPACE, _query("usage", "1 or true: with CPU and memory, where they are known.")),
        errors=(400, 404),
    ),
    Operation(
        "GET", "/system/function/{name}/revisions", "listRevisions", "The revisions that are kept, the oldest first.",
        "functions", {200: ("Those that a rollback may name.", list[Revision])},
        query=(_IN_NAMESPACE,), errors=(400, 404),
    ),
    Operation(
        "POST", "/system/function/{name}/rollback", "rollBack",
        "Put an earlier revision live again, as a new one and without a build.", "functions",
        {202: ("Accepted, and stored.", Rollback)},
        body=RollbackRequest, query=(_UNLESS_IN_BODY,), errors=(404, 409, 503),
    ),
    Operation(
        "GET", "/system/figures", "listFigures", "How every function, of all namespaces, is used.", "functions",
        {200: ("Calls by status, how long they took, and when the last revision came.", list[FunctionFigures])},
    ),
    Operation(
        "POST", "/system/scale-function/{name}", "scaleFunction", "Set the number of replicas.", "functions", _DONE,
        body=ScaleServiceRequest, query=(_UNLESS_IN_BODY,), errors=(404,),
    ),
    Operation(
        "POST", "/system/alert", "takeAlert", "Alertmanager's webhook: scale while an alert fires.", "functions",
        {200: ("Every alert was taken; unknown functions are passed over.", None)}, body=AlertGroup, errors=(500,),
    ),
    Operation(
        "GET", "/system/logs", "streamLogs", "What a function printed: a LogMessage a line.", "functions",
        {200: ("JSON lines; with `follow` until the client leaves.", _LINES)},
        query=(
            _query("name", "The function.", **_NAME) | {"required": True},
            _IN_NAMESPACE,
            _query("instance", "Of one replica only."),
            _query("since", "Only what was printed at this time or later.", format="date-time"),
            _query("tail", "Only so many last lines; -1: all.", type="integer", minimum=-1, maximum=999_999_999),
            _query("follow", "true: go on with what is printed from now on."),
        ),
        errors=(400, 404),
    ),
)  # fmt: skip

_SECRETS: Final = (
    Operation(
        "GET", "/system/secrets", "listSecrets", "The names of a namespace's secrets.", "secrets",
        {200: ("Names; values are never answered.", list[Secret])}, query=(_IN_NAMESPACE,), errors=(400,),
    ),
    Operation(
        "POST", "/system/secrets", "createSecret", "Store a new secret.", "secrets", _DONE,
        body=Secret, query=(_UNLESS_IN_BODY,), errors=(409, 422),
    ),
    Operation(
        "PUT", "/system/secrets", "replaceSecret", "Replace a secret; its functions are restarted, call by call.",
        "secrets", _DONE, body=Secret, query=(_UNLESS_IN_BODY,), errors=(404, 422),
    ),
    Operation(
        "DELETE", "/system/secrets", "removeSecret", "Remove a secret.", "secrets", _DONE,
        body=Secret, query=(_UNLESS_IN_BODY,), errors=(404, 422),
    ),
)  # fmt: skip

_DESCRIBE_NAMESPACE = {"describe": _to("describeNamespace", "$request.body#/name")}
_DELETE_NAMESPACE = {"delete": _to("deleteNamespace", "$request.path.name", requestBody="$response.body")}

_NAMESPACES: Final = (
    Operation(
        "GET", "/system/namespaces", "listNamespaces", "The names of the namespaces.", "namespaces",
        {200: ("Names, in order.", list[str])},
    ),
    Operation(
        "GET", "/system/namespace", "listNamespacesToo", "The names of the namespaces.", "namespaces",
        {200: ("Names, in order.", list[str])},
    ),
    Operation(
        "GET", "/system/namespace/", "listNamespacesAsWell", "The names of the namespaces.", "namespaces",
        {200: ("Names, in order.", list[str])},
    ),
    Operation(
        "POST", "/system/namespace", "createNamespaceToo", "Create a namespace.", "namespaces",
        {201: ("Created, and stored.", None)}, body=FunctionNamespace, errors=(409,),
    ),
    Operation(
        "POST", "/system/namespace/", "createNamespace",
        "Create a namespace. The label or annotation `openfaas=1` is required.", "namespaces",
        {201: ("Created, and stored.", None)}, body=FunctionNamespace, errors=(409,), links=_DESCRIBE_NAMESPACE,
    ),
    Operation(
        "GET", "/system/namespace/{name}", "describeNamespace", "One namespace, with its labels and annotations.",
        "namespaces", {200: ("The namespace.", FunctionNamespace)}, errors=(404,), links=_DELETE_NAMESPACE,
    ),
    Operation(
        "PUT", "/system/namespace/{name}", "updateNamespace", "Set labels and annotations; others are removed.",
        "namespaces", _DONE, body=FunctionNamespace, errors=(404,),
    ),
    Operation(
        "DELETE", "/system/namespace/{name}", "deleteNamespace",
        "Delete a namespace with every function and secret in it.", "namespaces", _DONE,
        body=FunctionNamespace, errors=(404,), links={"describe": _to("describeNamespace", "$request.path.name")},
    ),
)  # fmt: skip

_OF_FUNCTION: Final = (
    _query("function", "Of this function, which need not exist any more.", **_NAME),
    _IN_NAMESPACE,
    _query("after", "What the step before has answered; empty for the first step."),
    _query("limit", "Calls of a step, at most 10000.", type="integer", minimum=1, maximum=10000),
)

_CALLS: Final = (
    Operation(
        "GET", "/system/calls", "listCalls", "Async calls: those that wait or run, then those that have ended.",
        "calls", {200: ("A page, oldest first; an empty one is the last.", list[CallStatus])},
        query=(
            _query("function", "Of this function only."),
            _query("namespace", "Of this namespace only; the default one with a function."),
            _query("state", "In this state only.", enum=["", *CALL_STATES]),
            _query("after", "The `cursor` of the last call of the page before."),
            _query("limit", "Calls of a page, at most 1000.", type="integer", minimum=1, maximum=1000),
        ),
        errors=(400, 404, 503),
    ),
    Operation(
        "DELETE", "/system/calls", "purgeCalls",
        "One step of cancelling a function's queued or running calls, or of forgetting its dead ones.", "calls",
        {200: ("How many were changed, and where the next step goes on.", CallsChanged)},
        query=(
            *_OF_FUNCTION, _query("state", "Which; `queued` has those that wait for a retry, too.", enum=PURGED_STATES)
        ),
        errors=(400, 404, 503),
    ),
    Operation(
        "POST", "/system/calls/replay", "replayCalls", "One step of queueing all dead calls of a function once more.",
        "calls", {200: ("The new ids by the old ones, and where the next step goes on.", CallsChanged)},
        body=CallReplay, query=_OF_FUNCTION, errors=(404, 503),
    ),
    Operation(
        "GET", "/system/calls/{id}", "showCall", "One async call, by its `X-Call-Id`.", "calls",
        {200: ("The call.", CallStatus)}, errors=(404, 503),
    ),
    Operation(
        "GET", "/system/calls/{id}/result", "callResult",
        "The answer of an ended call, where it is kept: its headers and body; its status is in `X-Stoker-Status`.",
        "calls", {200: ("`X-Stoker-Truncated: true` says that the body was longer than 16 MiB.", "*/*")},
        errors=(404, 409, 503),
    ),
    Operation(
        "DELETE", "/system/calls/{id}", "cancelCall", "Cancel a call that waits or runs.", "calls", _DONE,
        errors=(404, 409, 503),
    ),
    Operation(
        "POST", "/system/calls/{id}/replay", "replayCall",
        "Queue a dead call once more, under a new id.", "calls", {202: ("The new call.", CallStatus)},
        body=CallReplay, errors=(404, 409, 503),
    ),
)  # fmt: skip

_RUNS: Final = (
    Operation(
        "GET", "/system/runs", "listRuns", "Runs, the newest first: each push that is to go live is one.", "runs",
        {200: ("At most 500.", list[Run])},
        query=(
            _query("owner", "Only runs of this owner."),
            _query("repository", "Only runs of repositories of this name."),
            _query("state", "Only runs in this state.", enum=["", *STATES]),
            _query("before", "Only runs with a smaller id.", type="integer", minimum=0),
            _query("limit", "The most runs.", type="integer", minimum=1, maximum=500),
        ),
        errors=(400, 404),
    ),
    Operation(
        "GET", "/system/runs/{id}", "showRun", "One run, with what became of each function.", "runs",
        {200: ("The run.", Run)}, errors=(400, 404),
    ),
    Operation(
        "GET", "/system/runs/{id}/log", "runLog", "The run's log, a RunLine a line.", "runs",
        {200: ("JSON lines.", _LINES)},
        query=(_query("follow", "Go on until the run has ended.", enum=["true", "false", ""]),),
        errors=(400, 404, 503),
    ),
    Operation(
        "POST", "/system/runs/{id}/retry", "retryRun", "Run the same commit again, if its branch is still there.",
        "runs", {202: ("The new run.", Run)}, errors=(400, 404, 409, 503),
    ),
    Operation(
        "DELETE", "/system/runs/{id}", "cancelRun", "Cancel a run that waits or goes.", "runs",
        {200: ("The run.", Run)}, errors=(400, 404, 409),
    ),
    Operation(
        "GET", "/system/repositories", "listRepositories", "The repositories of the platform's own git remote.",
        "runs", {200: ("All of them.", list[RepositoryName])}, errors=(404,),
    ),
    Operation(
        "DELETE", "/system/repositories/{owner}/{name}", "removeRepository",
        "Delete a repository; a run removes its functions.", "runs", {202: ("That run.", RemovedRepository)},
        errors=(400, 404, 503),
    ),
    Operation(
        "GET", "/system/owners", "listOwners", "Whose the names of owners are: the account's that pushed first.",
        "runs", {200: ("By name.", list[OwnerName])}, errors=(404, 503),
    ),
    Operation(
        "DELETE", "/system/owners/{owner}", "releaseOwner", "Whoever pushes next has the name.", "runs",
        {200: ("Whose it was.", OwnerName)}, errors=(404, 503),
    ),
    Operation(
        "GET", "/system/seal-key", "showSealKey", "The public key for secrets that stand in a repository.", "runs",
        {200: ("The key.", SealKey)}, errors=(404,),
    ),
)  # fmt: skip

_PLATFORM: Final = (
    Operation(
        "GET", "/system/info", "showInfo", "What runs here, in which release.", "platform",
        {200: ("No field is null.", GatewayInfo)},
    ),
    Operation(
        "POST", "/system/builds", "build", "Build a handler: a tar in, a BuildLine a line out.", "platform",
        {200: ("JSON lines; the last has the image, or the error.", _LINES)},
        body="application/x-tar", errors=(500, 503),
    ),
    Operation(
        "GET", "/healthz", "tellHealth", "Whether the platform answers.", "platform",
        {200: ("It does.", "text/plain")}, open=True,
    ),
    Operation(
        "GET", "/openapi.json", "showDescription", "This document.", "platform",
        {200: ("OpenAPI 3.1.", dict[str, Any])}, open=True,
    ),
    Operation(
        "GET", "/", "goToDashboard", "To the dashboard.", "platform", {307: ("It is at `/ui/`.", None)}, open=True
    ),
    Operation(
        "GET", "/ui/{rest}", "showDashboard", "Where the pages are switched off.", "platform", {}, errors=(404,)
    ),
)  # fmt: skip

OPERATIONS: Final = (*_FUNCTIONS, *_SECRETS, *_NAMESPACES, *_CALLS, *_RUNS, *_PLATFORM)
