"""The check of function tokens with real keys and a real issuer's server (contract section 8.6)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from watchdog_process import WatchdogProcess, watchdog

pytestmark = pytest.mark.slow

_NAMES = {"OPENFAAS_NAME": "greet", "OPENFAAS_NAMESPACE": "openfaas-fn"}


class Issuer:
    """Serves a discovery document and the public halves of its keys."""

    def __init__(self) -> None:
        issuer = self
        self.keys: dict[str, Any] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(issuer.documents()[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.add("rsa", rsa.generate_private_key(65537, 2048))

    def add(self, name: str, key: Any) -> None:
        self.keys[name] = key

    def documents(self) -> dict[str, Any]:
        shared = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
        keys = [_public(name, key) for name, key in self.keys.items()]
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": [*keys, shared]},
        }

    def token(self, name: str = "rsa", **claims: Any) -> str:
        values = {
            "iss": self.url,
            "aud": self.url,
            "exp": time.time() + 60,
            "function": {"permissions": ["openfaas-fn:*"]},
        }
        algorithm = "RS256" if isinstance(self.keys[name], rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(values | claims, self.keys[name], algorithm, {"kid": name})


def _public(name: str, key: Any) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": name, "use": "sig"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    one = Issuer()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def guarded(issuer: Issuer, tmp_path: Path) -> Iterator[WatchdogProcess]:
    options = _NAMES | {"jwt_auth": "true", "jwt_auth_debug": "true", "STOKER_JWT_ISSUER_URL": issuer.url}
    with watchdog(tmp_path, "http", **options) as one:
        yield one


def _status(one: WatchdogProcess, token: str) -> int:
    return one.call("/echo", b"x", headers={"Authorization": f"Bearer {token}"}).status


def test_a_good_token_passes_and_the_function_learns_how_long_the_check_took(
    guarded: WatchdogProcess, issuer: Issuer
) -> None:
    headers = {"Authorization": f"Bearer {issuer.token()}", "X-Auth-Seconds": "forged"}
    answer = guarded.call("/seen", b"x", headers=headers)
    assert answer.status == 200
    assert float(answer.json()["headers"]["X-Auth-Seconds"]) < 1


def test_without_a_token_the_answer_is_the_contracts(guarded: WatchdogProcess) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer x.y.z"},
    ):
        answer = guarded.call("/echo", b"x", headers=headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer realm=IAM function invoke"
        assert answer.headers["x-openfaas-internal"] == "faas-middleware"
        assert answer.headers["x-stoker-error"] == "client; unauthorized"
    assert guarded.call("/_/health", method="GET").status == 200
    assert guarded.call("/_/ready", method="GET").status == 200


def test_forged_and_stale_tokens_are_refused(guarded: WatchdogProcess, issuer: Issuer) -> None:
    other = rsa.generate_private_key(65537, 2048)
    good = {"iss": issuer.url, "aud": issuer.url, "exp": time.time() + 60, "function": {"permissions": ["*"]}}
    shared = "secret-secret-secret-secret-secret"
    forged = [
        jwt.encode(good, other, "RS256", {"kid": "rsa"}),
        jwt.encode(good, "", "none", {"kid": "rsa"}),
        jwt.encode(good, shared, "HS256", {"kid": "shared"}),
        jwt.encode(good, shared, "HS256", {"kid": "rsa"}),
        issuer.token(exp=time.time() - 10),
        issuer.token(aud="somebody else"),
        issuer.token(iss="somebody else"),
        issuer.token(exp=None),
        jwt.encode(good, issuer.keys["rsa"], "RS256"),
    ]
    assert [_status(guarded, token) for token in forged] == [401] * len(forged)


@pytest.mark.parametrize(
    ("function", "status"),
    [
        ({"permissions": ["openfaas-fn:greet"]}, 200),
        ({"permissions": ["*"]}, 200),
        ({"permissions": ["*:greet"], "audience": ["openfaas-fn:*"]}, 200),
        ({"permissions": ["openfaas-fn:gre"]}, 403),
        ({"permissions": ["enfaas-fn:greet"]}, 403),
        ({"permissions": ["openfaas-fn.greet"]}, 403),
        ({"permissions": ["openfaas-fn:g.eet"]}, 403),
        ({"permissions": ["*"], "audience": ["openfaas-fn:other"]}, 403),
        ({"permissions": []}, 403),
        ({"permissions": "*"}, 403),
        ({"permissions": [7, None]}, 403),
        ({}, 403),
        ("*", 403),
        (None, 403),
    ],
)
def test_patterns_must_match_the_whole_name(
    guarded: WatchdogProcess, issuer: Issuer, function: Any, status: int
) -> None:
    answer = guarded.call("/echo", b"x", headers={"Authorization": f"Bearer {issuer.token(function=function)}"})
    assert answer.status == status
    assert status == 200 or answer.text == "insufficient permissions\n"


def test_a_key_that_came_later_is_fetched_when_it_is_met(guarded: WatchdogProcess, issuer: Issuer) -> None:
    issuer.add("later", ec.generate_private_key(ec.SECP256R1()))
    token = issuer.token("later")
    # Keys are fetched again only some seconds after the last time.
    deadline = time.monotonic() + 15
    while (status := _status(guarded, token)) != 200 and time.monotonic() < deadline:
        assert status == 401
        time.sleep(0.5)
    body = b"x" * 1_000_000
    assert guarded.call("/echo", body, headers={"Authorization": f"Bearer {token}"}).body == body


def test_a_body_that_came_while_keys_were_fetched_is_whole(guarded: WatchdogProcess, issuer: Issuer) -> None:
    time.sleep(5.1)  # the pause between two fetches
    issuer.add("later", ec.generate_private_key(ec.SECP256R1()))
    body = b"y" * 3_000_000
    answer = guarded.call("/echo", body, headers={"Authorization": f"Bearer {issuer.token('later')}"})
    assert (answer.status, answer.body == body) == (200, True)


def test_an_issuer_that_does_not_answer_stops_the_start(tmp_path: Path) -> None:
    options = _NAMES | {"jwt_auth": "true", "STOKER_JWT_ISSUER_URL": "http://127.0.0.1:1"}
    with watchdog(tmp_path, "http", ready=False, **options) as one:
        assert one.process.wait(10) == 1
        assert "jwt_auth: the issuer's keys cannot be had from http://127.0.0.1:1/.well-known" in one.log
        assert "Traceback" not in one.log


def test_the_names_of_the_function_are_needed(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", ready=False, jwt_auth="true") as one:
        assert one.process.wait(10) == 1
        assert "OPENFAAS_NAME" in one.log
