"""The control API as methods: one for each route of the platform, with its values in and out.

Speaks the contract (sections 2 and 3), so it works with any gateway that does; what only Stoker answers
(builds, a revision, the `stoker` key of a status) is optional everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import urllib3

from stoker_sdk.errors import NotFound, Unavailable
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.http_client import Answer, Body, HttpClient, raise_for_status
from stoker_sdk.messages import (
    BuildLine,
    CallReplay,
    CallsChanged,
    CallStatus,
    DeleteFunctionRequest,
    FunctionNamespace,
    GatewayInfo,
    LogMessage,
    Revision,
    Rollback,
    RollbackRequest,
    ScaleServiceRequest,
    Secret,
)
from stoker_sdk.names import DEFAULT_NAMESPACE
from stoker_sdk.runs_client import RunsClient

T = TypeVar("T")
_STATUS = "X-Stoker-Status"
_STEP = "5000"


@dataclass(frozen=True)
class LogRequest:
    """Which lines of a log: `since` is RFC 3339 or empty, `tail` the number of last lines (-1: all)."""

    name: str
    namespace: str = ""
    instance: str = ""
    since: str = ""
    tail: int = -1
    follow: bool = False

    def query(self) -> dict[str, str]:
        return {
            "name": self.name,
            "namespace": self.namespace,
            "instance": self.instance,
            "since": self.since,
            "tail": str(self.tail),
            "follow": "true" if self.follow else "false",
        }


@dataclass(frozen=True)
class CallResult:
    """What a function answered to an async call; `truncated` if its body was longer than what is kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False


class ControlClient:
    """The control API of one gateway. Methods raise `StokerError`s: `Unavailable`, `Unauthorized`,
    `NotFound`, ...

    `namespace` arguments may be empty for the platform's default namespace.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @property
    def gateway(self) -> str:
        return self._http.gateway

    @property
    def runs(self) -> RunsClient:
        """What is asked of the git pipeline."""
        return RunsClient(self._http)

    def functions(self, namespace: str = "") -> list[FunctionStatus]:
        answer = self._http.call("GET", "/system/functions", query={"namespace": namespace})
        return self._decode(answer, list[FunctionStatus])

    def function(self, name: str, namespace: str = "", *, usage: bool = False) -> FunctionStatus:
        query = {"namespace": namespace, "usage": "1" if usage else ""}
        try:
            answer = self._http.call("GET", f"/system/function/{_segment(name)}", query=query)
        except NotFound:
            raise NotFound(_no_function(name, namespace)) from None
        return self._decode(answer, FunctionStatus)

    def create(self, spec: FunctionSpec) -> int:
        """Deploy a new function; returns its revision (0 when the gateway names none). Raises `Conflict`."""
        return _revision(self._http.call("POST", "/system/functions", body=msgspec.json.encode(spec)))

    def update(self, spec: FunctionSpec) -> int:
        """Deploy over an existing function; returns the new revision, or 0. Raises `NotFound`."""
        return _revision(self._http.call("PUT", "/system/functions", body=msgspec.json.encode(spec)))

    def remove(self, name: str, namespace: str = "") -> None:
        body = msgspec.json.encode(DeleteFunctionRequest(name, namespace))
        try:
            self._http.call("DELETE", "/system/functions", body=body)
        except NotFound:
            raise NotFound(_no_function(name, namespace)) from None

    def scale(self, name: str, replicas: int, namespace: str = "") -> None:
        body = msgspec.json.encode(ScaleServiceRequest(name, replicas, namespace))
        path = f"/system/scale-function/{_segment(name)}"
        try:
            self._http.call("POST", path, query={"namespace": namespace}, body=body)
        except NotFound:
            raise NotFound(_no_function(name, namespace)) from None

    def revisions(self, name: str, namespace: str = "") -> list[Revision]:
        """The function's history, the oldest first."""
        path = f"/system/function/{_segment(name)}/revisions"
        return self._decode(self._http.call("GET", path, query={"namespace": namespace}), list[Revision])

    def rollback(self, name: str, revision: int = 0, namespace: str = "") -> Rollback:
        """Put a revision live again, 0 for the newest other version that did not fail.

        Raises `NotFound`, which names those that there are, and `BadInput` when something that it needs is gone.
        """
        body = msgspec.json.encode(RollbackRequest(revision, namespace))
        answer = self._http.call("POST", f"/system/function/{_segment(name)}/rollback", body=body)
        return self._decode(answer, Rollback)

    def logs(self, request: LogRequest) -> Iterator[LogMessage]:
        """The lines as they come; ends when the gateway ends it, with `follow` usually never."""
        with self._http.stream("GET", "/system/logs", query=request.query(), timeout=None) as response:
            raise_for_status(response, self.gateway)
            for line in self._http.lines(response):
                yield self._parse(line, LogMessage)

    def secrets(self, namespace: str = "") -> list[Secret]:
        answer = self._http.call("GET", "/system/secrets", query={"namespace": namespace})
        return self._decode(answer, list[Secret])

    def create_secret(self, secret: Secret) -> None:
        """Raises `Conflict` when there is one of that name."""
        self._http.call("POST", "/system/secrets", body=msgspec.json.encode(secret))

    def update_secret(self, secret: Secret) -> None:
        try:
            self._http.call("PUT", "/system/secrets", body=msgspec.json.encode(secret))
        except NotFound:
            raise NotFound(_no_secret(secret)) from None

    def remove_secret(self, name: str, namespace: str = "") -> None:
        secret = Secret(name, namespace)
        try:
            self._http.call("DELETE", "/system/secrets", body=msgspec.json.encode(secret))
        except NotFound:
            raise NotFound(_no_secret(secret)) from None

    def namespaces(self) -> list[str]:
        answer = self._http.call("GET", "/system/namespaces")
        return self._decode(answer, list[str]) if answer.body.strip() else []

    def namespace(self, name: str) -> FunctionNamespace:
        try:
            answer = self._http.call("GET", f"/system/namespace/{_segment(name)}")
        except NotFound:
            raise NotFound(_no_namespace(name)) from None
        return self._decode(answer, FunctionNamespace)

    def create_namespace(
        self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Marks it as one for functions, as every client of the contract does. Raises `Conflict`."""
        self._http.call("POST", "/system/namespace/", body=_marked(name, labels or {}, annotations or {}))

    def update_namespace(
        self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Set its labels and annotations to these; others that it had are gone. Raises `NotFound`."""
        body = _marked(name, labels or {}, annotations or {})
        try:
            self._http.call("PUT", f"/system/namespace/{_segment(name)}", body=body)
        except NotFound:
            raise NotFound(_no_namespace(name)) from None

    def delete_namespace(self, name: str) -> None:
        """Remove it with all functions and secrets in it. Raises `NotFound`."""
        try:
            self._http.call("DELETE", f"/system/namespace/{_segment(name)}", body=_marked(name, {}, {}))
        except NotFound:
            raise NotFound(_no_namespace(name)) from None

    def info(self) -> GatewayInfo:
        return self._decode(self._http.call("GET", "/system/info"), GatewayInfo)

    def is_healthy(self) -> bool:
        with self._http.stream("GET", "/healthz", authorized=False) as response:
            return response.status == 200

    def build(self, archive: Body) -> Iterator[BuildLine]:
        """Send a build's tar (`archive.pack`) and give the lines of the answer as they come."""
        headers = {"Content-Type": "application/x-tar"}
        with self._http.stream("POST", "/system/builds", headers=headers, body=archive, timeout=None) as response:
            if response.status == 404:
                raise NotFound(f"{self.gateway} does not build functions: give an image that is built elsewhere")
            raise_for_status(response, self.gateway)
            for line in self._http.lines(response):
                yield self._parse(line, BuildLine)

    def invoke(
        self,
        name: str,
        namespace: str = "",
        *,
        method: str = "POST",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        asynchronous: bool = False,
    ) -> AbstractContextManager[urllib3.BaseHTTPResponse]:
        """Call a function, without credentials; every status is an answer. `query` is an encoded query
        string. An `asynchronous` call is only queued (202).

        Read the body with `chunks`.
        """
        route = "async-function" if asynchronous else "function"
        target = f"/{route}/{_segment(name)}.{_segment(namespace or DEFAULT_NAMESPACE)}"
        path = f"{target}?{query}" if query else target
        return self._http.stream(method, path, headers=headers, body=body, timeout=None, authorized=False)

    def call_status(self, id: str) -> CallStatus:
        """An async call by the id that its 202 had. Raises `NotFound`."""
        try:
            answer = self._http.call("GET", f"/system/calls/{_segment(id)}")
        except NotFound as error:
            raise _no_call(id, error) from None
        return self._decode(answer, CallStatus)

    def calls(
        self, function: str = "", namespace: str = "", *, state: str = "", after: str = "", limit: int = 50
    ) -> list[CallStatus]:
        """A page of async calls; the next begins `after` the last one's `cursor`. Pages end with an empty one."""
        query = {"function": function, "namespace": namespace, "state": state, "after": after, "limit": str(limit)}
        return self._decode(self._http.call("GET", "/system/calls", query=query), list[CallStatus])

    def cancel_call(self, id: str) -> None:
        """Raises `NotFound`, and `Conflict` when it has ended."""
        try:
            self._http.call("DELETE", f"/system/calls/{_segment(id)}")
        except NotFound as error:
            raise _no_call(id, error) from None

    def call_result(self, id: str) -> CallResult:
        """The kept answer of an async call. Raises `NotFound`, and `Conflict` when the call has not ended."""
        try:
            answer = self._http.call("GET", f"/system/calls/{_segment(id)}/result")
        except NotFound as error:
            raise _no_call(id, error) from None
        status = answer.header(_STATUS)
        if not status.isdigit():
            raise Unavailable(f"{self.gateway} gave a result without {_STATUS}: is it a Stoker gateway?")
        return CallResult(int(status), answer.headers, answer.body, answer.header("X-Stoker-Truncated") == "true")

    def replay_call(self, id: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> str:
        """Queue a dead call once more, changed if wished; returns the new call's id. Raises `NotFound`, `Conflict`."""
        changes = msgspec.json.encode(CallReplay(dict(headers or {}), body))
        try:
            answer = self._http.call("POST", f"/system/calls/{_segment(id)}/replay", body=changes)
        except NotFound as error:
            raise _no_call(id, error) from None
        return self._decode(answer, CallStatus).id

    def purge_calls(self, function: str, namespace: str, state: str) -> Iterator[CallsChanged]:
        """Cancel calls that are `queued` (for a retry, too) or `running`, or forget `dead` ones: step by step."""
        query = {"function": function, "namespace": namespace, "state": state, "limit": _STEP}
        return self._steps("DELETE", "/system/calls", query, None)

    def replay_calls(
        self, function: str, namespace: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[CallsChanged]:
        """Queue all dead calls of a function once more, changed if wished: step by step."""
        changes = msgspec.json.encode(CallReplay(dict(headers or {}), body))
        query = {"function": function, "namespace": namespace, "limit": _STEP}
        return self._steps("POST", "/system/calls/replay", query, changes)

    def _steps(self, method: str, path: str, query: dict[str, str], body: bytes | None) -> Iterator[CallsChanged]:
        after = ""
        while True:
            answer = self._http.call(method, path, query=query | {"after": after}, body=body)
            step = self._decode(answer, CallsChanged)
            yield step
            if not step.after:
                return
            after = step.after

    def chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body of an invocation's answer as it comes."""
        return self._http.chunks(response)

    def close(self) -> None:
        self._http.close()

    def _decode(self, answer: Answer, kind: type[T]) -> T:
        return self._parse(answer.body, kind)

    def _parse(self, text: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Unavailable(f"{self.gateway} answered what is not this API: is it a Stoker gateway?") from None


def _revision(answer: Answer) -> int:
    text = answer.header("X-Stoker-Revision")
    return int(text) if text.isascii() and text.isdigit() else 0


def _segment(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _marked(name: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> bytes:
    """The body of a namespace call; gateways refuse one without the mark (contract section 2.7)."""
    mark = {"openfaas": "1"}
    return msgspec.json.encode(FunctionNamespace(name, {**annotations, **mark}, {**labels, **mark}))


def _no_call(id: str, error: NotFound) -> NotFound:
    """The gateway's own words, where it is one that has async calls."""
    return error if str(error) else NotFound(f"no such call: {id!r}; calls are forgotten after a week")


def _no_namespace(name: str) -> str:
    return f"namespace {name!r} not found; `stoker namespaces` shows which there are"


def _no_function(name: str, namespace: str) -> str:
    where = f" in namespace {namespace!r}" if namespace else ""
    return f"no such function: {name!r}{where}; `stoker list` shows what is deployed"


def _no_secret(secret: Secret) -> str:
    where = f" in namespace {secret.namespace!r}" if secret.namespace else ""
    return f"unable to find secret: {secret.name!r}{where}; `stoker secret list` shows what there is"
