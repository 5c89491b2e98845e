"""Packages of a private index, by a secret that is sealed in the repository: it is in no log, no artefact, no cache."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running_platform import Platform
from working_copy import WorkingCopy, stack

from stoker_sdk.sealing import purpose_of, seal

pytestmark = pytest.mark.slow

Make = Callable[..., Platform]
TOKEN = "s3cr3t-t0ken-of-the-index"
HANDLER = "import stokerhush\n\n\ndef handle(req):\n    return stokerhush.WORD + req\n"
TEST = "import os\n\n\ndef test_it():\n    assert 'INDEX_TOKEN' not in os.environ\n"


def wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("stokerhush.py", "WORD = 'hush '\n")
        info = "stokerhush-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stokerhush\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


@contextmanager
def private_index() -> Iterator[str]:
    """Its address, without credentials. It gives its one package to whoever has the token."""
    name, data = "stokerhush-1.0-py3-none-any.whl", wheel()
    wanted = "Basic " + base64.b64encode(f"build:{TOKEN}".encode()).decode()
    page = f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'.encode()

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = data if self.path.endswith(".whl") else page
            status = 200 if self.headers.get("Authorization") == wanted else 401
            known = "stokerhush" in self.path
            self.send_response(status if known else 404)
            self.send_header("Content-Type", "text/html" if body is page else "application/octet-stream")
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", str(len(body) if status == 200 and known else 0))
            self.end_headers()
            if status == 200 and known and self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def project(copy: WorkingCopy, index: str, token: str) -> None:
    key = copy.platform.client.runs.seal_key()
    sealed = seal(key, token.encode(), purpose_of(copy.owner, copy.name, "INDEX_TOKEN"))
    copy.commit(
        greet__handlerDOTpy=HANDLER,
        greet__handler_testDOTpy=TEST,
        greet__requirementsDOTtxt=f"--extra-index-url http://build:${{INDEX_TOKEN}}@{index}/simple\nstokerhush\n",
        tokenDOTsealed=sealed + "\n",
        stackDOTyml=stack("greet", more="    build_secrets: {INDEX_TOKEN: token.sealed}\n"),
    )


def files_with(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if text.encode() in path.read_bytes()]


def test_a_private_package_is_installed_and_the_secret_is_nowhere(make_platform: Make, tmp_path: Path) -> None:
    with private_index() as index:
        own_platform = make_platform(flags=("--build-reach", index))
        copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
        project(copy, index, TOKEN)
        pushed = copy.push("-o", "wait")
        assert pushed.code == 0, pushed.said
    assert copy.answer("greet") == "hush you"
    log = "".join(line.text for line in own_platform.client.runs.log(1))
    assert TOKEN not in pushed.said + log + own_platform.log
    assert files_with(own_platform.data.path, TOKEN) == []
    # Who has not the secret does not get the packages that it gave.
    other = WorkingCopy(own_platform, tmp_path / "other", "you/greet")
    other.commit(
        greet__handlerDOTpy=HANDLER,
        greet__requirementsDOTtxt=(copy.folder / "greet" / "requirements.txt").read_text(),
        stackDOTyml=stack("greet"),
    )
    assert other.push("-o", "wait").code == 1


def test_a_wrong_secret_is_told_with_the_index_and_not_shown(make_platform: Make, tmp_path: Path) -> None:
    with private_index() as index:
        own_platform = make_platform(flags=("--build-reach", index))
        copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
        project(copy, index, "wr0ng-t0ken-of-mine")
        begun = time.monotonic()
        pushed = copy.push("-o", "wait")
        assert pushed.code == 1 and index in copy.runs()[0].reason
        assert time.monotonic() - begun < 10
    assert "wr0ng" not in pushed.said + own_platform.log


def test_a_secret_of_another_repository_cannot_be_used(own_platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    thief = WorkingCopy(own_platform, tmp_path / "thief", "me/thief")
    with private_index() as index:
        project(copy, index, TOKEN)
        sealed = (copy.folder / "token.sealed").read_text()
        project(thief, index, "anything at all")
        thief.commit(tokenDOTsealed=sealed)
        pushed = thief.push("-o", "wait")
    assert pushed.code == 1 and "was not sealed for me/thief INDEX_TOKEN" in pushed.said
