"""The requests of faas-cli 0.18.12, byte for byte where it matters, over `http.client` (contract section 3)."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MANAGEMENT = "faas-cli/0.18.12"
INVOKE = "faas-cli/0.18.12 (openfaas; linux; amd64)"
SDK = "openfaas-go-sdk"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FaasCli:
    """One user at one gateway. `authorization` is what a login stored; logged out it is a bearer without a token."""

    address: tuple[str, int]
    authorization: str = "Bearer "
    sent: list[tuple[str, str, int]] = field(default_factory=list)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        agent: str = MANAGEMENT,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own. Content-Type is JSON exactly when there is a body."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        fields = {"User-Agent": agent, "Accept-Encoding": "gzip"}
        if content is not None:
            fields["Content-Type"] = "application/json"
        credentials = self.authorization if authorization is None else authorization
        if credentials:
            fields["Authorization"] = credentials
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request(method, path, content, fields | dict(headers or {}))
            response = connection.getresponse()
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        self.sent.append((method, path, reply.status))
        return reply

    def deploy(self, spec: Mapping[str, Any]) -> list[int]:
        """PUT, and only on 404 POST; the statuses in order."""
        statuses = [self.send("PUT", "/system/functions", spec).status]
        if statuses == [404]:
            statuses.append(self.send("POST", "/system/functions", spec).status)
        return statuses

    def describe(self, name: str, namespace: str) -> Reply:
        return self.send("GET", f"/system/function/{name}?namespace={namespace}&usage=1")

    def list(self, namespace: str = "") -> Reply:
        return self.send("GET", "/system/functions" + (f"?namespace={namespace}" if namespace else ""))

    def remove(self, name: str, namespace: str) -> Reply:
        return self.send("DELETE", "/system/functions", {"functionName": name, "namespace": namespace})

    def scale(self, name: str, replicas: int, namespace: str) -> Reply:
        body = {"serviceName": name, "replicas": replicas, "namespace": namespace}
        return self.send("POST", f"/system/scale-function/{name}", body)

    def logs(self, name: str, namespace: str, *, follow: bool = False, lines: int = -1) -> Reply:
        query = f"follow={str(follow).lower()}&name={name}&namespace={namespace}&tail={lines}"
        return self.send("GET", f"/system/logs?{query}")

    def invoke(self, name: str, namespace: str, body: bytes = b"", **headers: str) -> Reply:
        path = f"/function/{name}.{namespace}"
        fields = {"Content-Type": "text/plain"} | headers
        return self.send("POST", path, body, agent=INVOKE, authorization="", headers=fields)

    def namespace(self, method: str, name: str, body: object = None) -> Reply:
        path = "/system/namespace/" if method == "POST" else f"/system/namespace/{name}"
        return self.send(method, path, body, agent=SDK)
