"""A package index of Python, a registry of npm and a proxy of Go modules in one, on this machine, for builds that need
packages which misbehave, or credentials.

    with package_server([sdist("evil", PROGRAM), npm_package("evil", SCRIPT)]) as server:
        server.address                      # 127.0.0.1:PORT
        server.simple, server.npm, server.go    # what pip, npm and go call an index
        server.asked                        # the paths that were asked for, with their Authorization

With `token`, whoever has not `Authorization: Basic build:TOKEN` or `Bearer TOKEN`, or a path below `/TOKEN/`, gets 401.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ZIP_DATE = "2024-01-01T00:00:00Z"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Package:
    """`index` is `simple`, `npm` or `go`; `files` by their paths below that index."""

    index: str
    name: str
    files: Mapping[str, bytes]


@dataclass
class PackageServer:
    address: str
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def simple(self) -> str:
        return f"http://{self.address}/simple/"

    @property
    def npm(self) -> str:
        return f"http://{self.address}/npm/"

    @property
    def go(self) -> str:
        return f"http://{self.address}/go"


def sdist(name: str, program: str) -> Package:
    """A source distribution that runs `program` when it is built, and then makes an empty wheel of itself."""
    backend = f"""
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    exec(compile({program!r}, "program", "exec"), {{}})
    wheel = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, wheel), "w") as archive:
        archive.writestr("{name}.py", "WORD = 'made '\\n")
        archive.writestr("{name}-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr("{name}-1.0.dist-info/WHEEL", {WHEEL!r})
        archive.writestr("{name}-1.0.dist-info/RECORD", "")
    return wheel
"""
    project = f"""[project]
name = "{name}"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    data = tar_of(
        {f"{name}-1.0/pyproject.toml": project, f"{name}-1.0/backend.py": backend, f"{name}-1.0/PKG-INFO": info}
    )
    file = f"{name}-1.0.tar.gz"
    page = f'<a href="{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>'.encode()
    return Package("simple", name, {f"{name}/": page, f"{name}/{file}": data})


def npm_package(name: str, install: str = "") -> Package:
    """A package of npm; `install` is a line of shell that its installation runs."""
    about = {
        "name": name,
        "version": "1.0.0",
        "main": "index.js",
        **({"scripts": {"install": install}} if install else {}),
    }
    data = tar_of({"package/package.json": json.dumps(about), "package/index.js": "module.exports = 'made ';\n"})
    digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    version = about | {
        "hasInstallScript": bool(install),
        "dist": {"integrity": digest, "tarball": f"@npm@{name}/-/1.tgz"},
    }
    page = json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})
    return Package("npm", name, {name: page.encode(), f"{name}/-/1.tgz": data})


def go_module(name: str) -> Package:
    """A module with a function `Word`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file, text in _go_files(name).items():
            archive.writestr(f"{name}@v1.0.0/{file}", text)
    files = {
        f"{name}/@v/list": b"v1.0.0\n",
        f"{name}/@v/v1.0.0.info": json.dumps({"Version": "v1.0.0", "Time": ZIP_DATE}).encode(),
        f"{name}/@v/v1.0.0.mod": f"module {name}\n".encode(),
        f"{name}/@v/v1.0.0.zip": content.getvalue(),
    }
    return Package("go", name, files)


def go_sum(name: str) -> str:
    """The lines of go.sum for it: hashes of the hashes of files (golang.org/x/mod/sumdb/dirhash, `Hash1`)."""
    files = _go_files(name)
    return (
        f"{name} v1.0.0 {_hash1({f'{name}@v1.0.0/{file}': text for file, text in files.items()})}\n"
        f"{name} v1.0.0/go.mod {_hash1({'go.mod': files['go.mod']})}\n"
    )


def _go_files(name: str) -> dict[str, str]:
    return {
        "go.mod": f"module {name}\n",
        "word.go": 'package word\n\nfunc Word() string { return "made " }\n',
    }


def _hash1(files: Mapping[str, str]) -> str:
    lines = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {file}\n" for file, text in sorted(files.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


def tar_of(files: Mapping[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


@contextmanager
def package_server(packages: Iterable[Package], token: str = "") -> Iterator[PackageServer]:
    files = {f"/{each.index}/{path}": data for each in packages for path, data in each.files.items()}
    right = {"Basic " + base64.b64encode(f"build:{token}".encode()).decode(), f"Bearer {token}"}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            server.asked.append((self.path, given))
            path = self.path.replace("%2f", "/")
            opened = token and path.startswith(f"/{token}/")
            data = files.get(path.removeprefix(f"/{token}") if opened else path)
            status = 401 if token and not opened and given not in right else 200 if data is not None else 404
            body = data if status == 200 and data is not None else b""
            body = body.replace(b"@npm@", server.npm.encode()) if self.path.startswith("/npm/") else body
            self.send_response(status)
            kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server = PackageServer(f"127.0.0.1:{http.server_address[1]}")
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
