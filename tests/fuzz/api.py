"""The control API: what its own description makes, good and bad, and mutated bodies, names, queries and paths."""

from __future__ import annotations

import base64
import http.client
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import schemathesis
from described_api import CHECKS, OPERATIONS
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from mutations import JUNK, NAMES, nearly
from rounds import play
from running_platform import Platform
from schemathesis import GenerationMode

MARK = {"openfaas": "1"}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/system/functions"): {
        "service": "greet", "image": "one that is there", "namespace": "", "envProcess": "x",
        "envVars": {"A": "b"}, "labels": {"a": "b"}, "annotations": {"a": "b"}, "secrets": [],
        "constraints": ["a=b"],
        "limits": {"memory": "1Mi", "cpu": "1"}, "requests": {}, "readOnlyRootFilesystem": False,
    },
    ("PUT", "/system/functions"): {"service": "greet", "image": "one that is there", "labels": {}, "envVars": {}},
    ("DELETE", "/system/functions"): {"functionName": "greet", "namespace": "openfaas-fn"},
    ("POST", "/system/scale-function/{}"): {"serviceName": "greet", "replicas": 1, "namespace": ""},
    ("POST", "/system/alert"): {"status": "firing", "alerts": [{"status": "firing", "labels": {"function_name": "a"}}]},
    ("POST", "/system/secrets"): {"name": "greet", "namespace": "openfaas-fn", "value": "x", "rawValue": "eA=="},
    ("PUT", "/system/secrets"): {"name": "greet", "namespace": "openfaas-fn", "value": "x", "rawValue": "eA=="},
    ("DELETE", "/system/secrets"): {"name": "greet", "namespace": "openfaas-fn"},
    ("POST", "/system/namespace/"): {"name": "dev", "labels": MARK, "annotations": MARK},
    ("PUT", "/system/namespace/{}"): {"name": "dev", "labels": MARK, "annotations": {}},
    ("DELETE", "/system/namespace/{}"): {"name": "dev", "labels": MARK},
}  # fmt: skip
READS = ["/system/functions", "/system/function/{}", "/system/logs", "/system/secrets", "/system/namespaces",
         "/system/namespace/{}", "/system/info", "/healthz", "/", "/ui/{}", "/openapi.json", "/system/{}",
         "/{}"]  # fmt: skip
QUERIES = ["namespace", "name", "usage", "tail", "since", "instance", "Namespace"]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes | None


@st.composite
def requests(draw: st.DrawFn, image: str) -> Request:
    if draw(st.booleans()):
        method, path = draw(st.sampled_from(sorted(BODIES)))
        good = BODIES[method, path]
        body = draw(nearly(good | {"image": image} if "image" in good else good))
    else:
        method, body = draw(st.sampled_from(["GET", "GET", "HEAD", "POST", "PATCH"])), None
        path = draw(st.sampled_from(READS))
    return Request(method, path.format(_escaped(draw)) + draw(queries()), body)


def _escaped(draw: st.DrawFn) -> str:
    name = draw(st.one_of(st.sampled_from(["greet", "dev", "nobody"]), NAMES)).encode("utf-8", "surrogatepass")
    return quote(name, safe=draw(st.sampled_from(["", "/", "/.%:@"])))


@st.composite
def queries(draw: st.DrawFn) -> str:
    pairs = draw(st.lists(st.tuples(st.sampled_from(QUERIES), st.one_of(NAMES, JUNK.map(str))), max_size=3))
    plain = [(key, value.encode("utf-8", "surrogatepass")) for key, value in pairs]
    return "?" + urlencode(plain) if plain else ""


def fuzz(platform: Platform) -> int:
    return _mutated(platform) + _described(platform)


def _mutated(platform: Platform) -> int:
    token = base64.b64encode(f"admin:{_password(platform)}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Connection": "close"}

    def check(request: Request) -> None:
        connection = http.client.HTTPConnection(*platform.http, timeout=20)
        try:
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status < 500, (response.status, body[:500])
        if response.status >= 400:
            side = response.headers["X-Stoker-Error"]
            assert side and side.startswith("client; "), (response.status, side, body[:500])
            assert request.method == "HEAD" or body.endswith(b"\n"), (response.status, body[:500])

    return play(requests(platform.status("hostile").image), check, 150)


def _described(platform: Platform) -> int:
    auth = ("admin", _password(platform))

    def check(case: schemathesis.Case) -> None:
        if isinstance(case.query, dict):
            case.query.pop("follow", None)  # such an answer has no end
        answer = case.call(base_url=platform.http_url, auth=auth, allow_redirects=False)
        case.validate_response(answer, checks=CHECKS)

    tried = 0
    for operation in random.sample(OPERATIONS, 4):
        mode = random.choice([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
        try:
            tried += play(operation.as_strategy(generation_mode=mode), check, 25)
        except Unsatisfiable:
            pass  # there is nothing to get wrong in it
    return tried


def _password(platform: Platform) -> str:
    return platform.data.password.read_text().strip()
