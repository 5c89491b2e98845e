"""A token service for a registry, as Docker Hub and GHCR have one: a password goes in, a signed token comes out."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stoker_gateway.tls import ensure_certificates

ISSUER, SERVICE = "the tests", "registry"


class TokenService:
    """Signs what is asked for, for whom knows the password; `settings` are what its registry is told."""

    def __init__(self, folder: Path, authorization: str) -> None:
        certificates = ensure_certificates(folder, ())
        chain = x509.load_pem_x509_certificates(certificates.chain.read_bytes())
        self._key = certificates.key.read_bytes()
        self._header = {"x5c": [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain]}
        self.asked: list[str] = []
        service = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.path)
                if self.headers.get("Authorization") != authorization:
                    self.send_error(401)
                    return
                scope = parse_qs(urlsplit(self.path).query)["scope"][0]
                body = json.dumps({"token": service.token(scope)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        realm, bundle = f"http://127.0.0.1:{self._server.server_port}/token", str(certificates.ca)
        self.settings = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}

    def token(self, scope: str) -> str:
        """For `repository:NAME:ACTIONS`, whoever asks."""
        return jwt.encode(_claims(scope), self._key, "ES256", self._header)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _claims(scope: str) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    now = int(time.time())
    access = [{"type": kind, "name": name, "actions": actions.split(",")}]
    times = {"iat": now, "nbf": now - 10, "exp": now + 60}
    return {"iss": ISSUER, "aud": SERVICE, "sub": "", "jti": str(now), "access": access, **times}
