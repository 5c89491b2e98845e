"""A real image registry of one test, on a free port: open, behind a password, behind tokens, with TLS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import yaml
from running_platform import wait_for

from stoker_gateway.tls import ensure_certificates

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LISTENING = re.compile(r"listening on [^ ]*:(\d+)")
USER, PASSWORD = "puller", "pass:word"


class RunningRegistry:
    """`address` is what images' names begin with. With `tls` that is this machine's name, since loopback means HTTP."""

    def __init__(
        self, folder: Path, *, password: bool = False, tls: bool = False, token: Mapping[str, str] | None = None
    ):
        self._folder = folder
        self._log = folder / "registry.log"
        self._host = socket.gethostname() if tls else "localhost"
        self.ca = folder / "tls" / "ca.pem"
        http: dict[str, object] = {"addr": "0.0.0.0:0" if tls else "127.0.0.1:0"}
        if tls:
            certificates = ensure_certificates(folder / "tls", (self._host,))
            http["tls"] = {"certificate": str(certificates.chain), "key": str(certificates.key)}
        auth: dict[str, object] = {}
        if password:
            line = subprocess.check_output(["htpasswd", "-nbB", USER, PASSWORD], text=True)
            (folder / "htpasswd").write_text(line)
            auth = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        if token:
            auth = {"token": dict(token)}
        storage = {"filesystem": {"rootdirectory": str(folder / "storage")}}
        document = {"version": 0.1, "storage": storage, "http": http} | ({"auth": auth} if auth else {})
        (folder / "registry.yml").write_text(yaml.safe_dump(document))
        program = shutil.which("docker-registry")
        assert program is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(folder / "registry.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        found = wait_for(lambda: _LISTENING.search(self._log.read_text()), "the registry's port")
        self.address = f"{self._host}:{found.group(1)}"
        self._url = f"{'https' if tls else 'http'}://{self.address}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def push(self, path: str, tag: str, content: str, headers: Mapping[str, str] = {}) -> str:
        """Let a tag mean an image of this content; returns its digest. `headers` are credentials."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "comment": content}).encode()
        described = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": described | {"digest": _digest(config)},
            "layers": [],
        }
        body = json.dumps(manifest).encode()
        place = self._send("POST", f"{self._url}/v2/{path}/blobs/uploads/", b"", headers)["Location"]
        self._send("PUT", f"{place}&digest={_digest(config)}", config, headers)
        self._send("PUT", f"{self._url}/v2/{path}/manifests/{tag}", body, {"Content-Type": _MANIFEST, **headers})
        return _digest(body)

    def _send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
        request = urllib.request.Request(
            url, body, {"Content-Type": "application/octet-stream", **headers}, method=method
        )
        trust = ssl.create_default_context(cafile=str(self.ca)) if url.startswith("https") else None
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return dict(answer.headers)


def basic(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
