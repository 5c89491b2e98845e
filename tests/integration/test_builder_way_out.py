"""What installers of pushed functions reach: their index, and nothing else of this machine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from builder_process import Outcome, build, request_tar
from package_server import PackageServer, go_module, go_sum, npm_package, package_server, sdist

from stoker_builder.this_machine import is_this_machine
from stoker_builder.tree import remove_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(320),  # Go compiles all that there is, once
    pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces"),
]

PYTHON = "import {name}\n\n\ndef handle(req):\n    return {name}.WORD + req\n"
NODE = "const word = require('{name}');\nmodule.exports = async (event) => word + event.body;\n"
GO = """package function

import (
	"net/http"

	"example.org/word"
)

func Handle(w http.ResponseWriter, r *http.Request) {
	w.Write([]byte(word.Word()))
}
"""

PROBE = """
import os, socket, sys, urllib.request

reached = []
for host, port in {targets!r}:
    try:
        socket.create_connection((host, port), 2).close()
        reached.append(("directly", host, port))
    except OSError:
        pass
    shown = "[" + host + "]" if ":" in host else host
    proxy = os.environ["http_proxy"].removeprefix("http://").split(":")
    for line in ("CONNECT %s:%d HTTP/1.1" % (shown, port), "GET http://%s:%d/ HTTP/1.1" % (shown, port)):
        with socket.create_connection((proxy[0], int(proxy[1])), 5) as client:
            client.sendall(line.encode() + b"\\r\\nHost: x\\r\\n\\r\\n")
            answer = client.recv(1000).split(b"\\r\\n")[0]
        if b" 403 " not in answer and b" 502 " not in answer:
            reached.append((line, answer))
sys.exit("PROBED " + repr(reached))
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that every user may enter, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-way-out-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    remove_tree(folder)


@contextmanager
def api() -> Iterator[int]:
    """Something of the platform's on every address of this machine; its port."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"reached")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def own_address() -> str:
    """By which other machines know this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def probe(port: int) -> str:
    hosts = ("127.0.0.1", "localhost", "127.8.8.8", "0.0.0.0", "::1", "::ffff:127.0.0.1", own_address(), "2130706433")
    targets = [(host, port) for host in hosts] + [("169.254.169.254", 80)]
    return PROBE.format(targets=targets)


def install(data_dir: Path, lang: str, server: PackageServer, name: str, *, reach: bool = False) -> Outcome:
    """Build a pushed function that needs the package."""
    files = {
        "python3": {"handler.py": PYTHON.format(name=name), "requirements.txt": f"{name}\n"},
        "node": {
            "handler.js": NODE.format(name=name),
            "package.json": json.dumps({"dependencies": {name: "1.0.0"}}),
        },
        "go": {
            "handler.go": GO,
            "go.mod": "module handler/function\n\ngo 1.18\n\nrequire example.org/word v1.0.0\n",
            "go.sum": go_sum("example.org/word"),
        },
    }[lang]
    indexes = {
        "UV_DEFAULT_INDEX": server.simple,
        "UV_FIND_LINKS": "",
        "npm_config_registry": server.npm,
        "GOPROXY": server.go,
        "GONOSUMDB": "*",
    }
    if reach:  # the repository names its index, and the operator allows it
        files |= {"requirements.txt": f"--index-url {server.simple}\n{name}\n", ".npmrc": f"registry={server.npm}\n"}
        indexes = {"UV_DEFAULT_INDEX": "", "UV_FIND_LINKS": ""}
    flags = ("--reach", server.address) if reach else ()
    return build(data_dir, request_tar(files, lang=lang, offline=True), indexes, flags, seconds=300)


@pytest.mark.parametrize("lang", ["python3", "node"])
def test_an_install_script_reaches_nothing_of_the_platforms(data_dir: Path, lang: str) -> None:
    with api() as port:
        program = probe(port)
        packages = [sdist("probing", program), npm_package("probing", f"python3 -c {shlex.quote(program)}")]
        with package_server(packages) as server:
            outcome = install(data_dir, lang, server, "probing")
    said = "\n".join([*outcome.log, outcome.error])
    assert outcome.result["code"] == "failed-install"
    assert "PROBED []" in said, said


@pytest.mark.parametrize("lang", ["python3", "node", "go"])
def test_the_index_of_the_platforms_settings_is_reached(data_dir: Path, lang: str) -> None:
    packages = [sdist("plain", ""), npm_package("plain"), go_module("example.org/word")]
    with package_server(packages) as server:
        outcome = install(data_dir, lang, server, "plain")
    assert outcome.code == 0, outcome
    assert not any("the machine's network" in line for line in outcome.log)


def test_indexes_here_may_be_named_by_two_names(data_dir: Path) -> None:
    files = {"handler.py": PYTHON.format(name="plain"), "requirements.txt": "plain\n"}
    with package_server([sdist("plain", "")]) as server:
        simple = server.simple.replace("127.0.0.1", "localhost")
        indexes = {"UV_DEFAULT_INDEX": simple, "UV_FIND_LINKS": "", "npm_config_registry": server.npm}
        outcome = build(data_dir, request_tar(files, offline=True), indexes)
    assert simple != server.simple
    assert outcome.code == 0, outcome


def test_the_platforms_own_proxy_is_no_index(data_dir: Path) -> None:
    with api() as port:
        program = PROBE.format(targets=[("127.0.0.1", port)])
        with package_server([sdist("probing", program)]) as server:
            proxy = f"http://127.0.0.1:{port}"
            indexes = {"UV_DEFAULT_INDEX": server.simple, "UV_FIND_LINKS": "", "HTTP_PROXY": proxy}
            indexes |= {"https_proxy": proxy, "npm_config_proxy": proxy, "npm_config_https_proxy": proxy}
            files = {"handler.py": PYTHON.format(name="probing"), "requirements.txt": "probing\n"}
            outcome = build(data_dir, request_tar(files, offline=True), indexes)
    said = "\n".join([*outcome.log, outcome.error])
    assert "PROBED []" in said, said


@pytest.mark.parametrize("lang", ["python3", "node"])
def test_an_index_here_that_the_repository_names_is_reached_when_it_is_allowed(data_dir: Path, lang: str) -> None:
    with package_server([sdist("plain", ""), npm_package("plain")]) as server:
        outcome = install(data_dir, lang, server, "plain", reach=True)
        assert outcome.code == 0, outcome


def test_an_index_here_that_the_repository_names_is_refused_with_the_reason(data_dir: Path) -> None:
    with package_server([sdist("plain", "")]) as server:
        files = {"handler.py": PYTHON.format(name="plain"), "requirements.txt": f"--index-url {server.simple}\nplain\n"}
        outcome = build(data_dir, request_tar(files, offline=True), {"UV_DEFAULT_INDEX": "", "UV_FIND_LINKS": ""})
        assert outcome.result["code"] == "failed-install"
        assert server.address in outcome.error and "403" in outcome.error, outcome
        assert server.asked == []


TOKEN = "t0ken-of-the-index"


@pytest.mark.parametrize("lang", ["python3", "node", "go"])
@pytest.mark.parametrize("token", [TOKEN, "wr0ng-t0ken"], ids=["right", "wrong"])
def test_a_build_secret_opens_a_private_index_and_is_nowhere(data_dir: Path, lang: str, token: str) -> None:
    packages = [sdist("plain", ""), npm_package("plain"), go_module("example.org/word")]
    with package_server(packages, TOKEN) as server:
        began = time.monotonic()
        outcome = build(
            data_dir,
            request_tar(
                {
                    "handler.py": PYTHON.format(name="plain"),
                    "requirements.txt": f"--index-url http://build:${{INDEX_TOKEN}}@{server.address}/simple/\nplain\n",
                    "handler.js": NODE.format(name="plain"),
                    "package.json": json.dumps({"dependencies": {"plain": "1.0.0"}}),
                    ".npmrc": f"registry={server.npm}\n//{server.address}/npm/:_authToken=${{INDEX_TOKEN}}\n",
                    "handler.go": GO,
                    "go.mod": "module handler/function\n\ngo 1.18\n\nrequire example.org/word v1.0.0\n",
                    "go.sum": go_sum("example.org/word"),
                    "go.env": f"GOPROXY=http://{server.address}/${{INDEX_TOKEN}}/go\nGONOSUMDB=*\n",
                },
                lang=lang,
                offline=True,
                secrets={"INDEX_TOKEN": token},
            ),
            {"UV_DEFAULT_INDEX": "", "UV_FIND_LINKS": ""},
            ("--reach", server.address),
            seconds=300,
        )
    told = "\n".join([*outcome.log, str(outcome.result)])
    assert token not in told
    if token == TOKEN:
        assert outcome.code == 0, outcome
    else:
        assert outcome.result["code"] == "failed-install" and server.address in outcome.error, outcome
        assert time.monotonic() - began < 60  # of 300 that a build may take: a refusal is not tried again and again
    for path in data_dir.rglob("*"):
        if path.is_file() and not path.is_symlink() and "interpreter" not in path.parts:
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1", True),
        ("127.200.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("169.254.169.254", True),
        ("fe80::1%lo", True),
        ("168.63.129.16", True),
        ("100.100.100.200", True),
        ("::ffff:100.100.100.200", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_what_is_this_machine(address: str, here: bool) -> None:
    assert is_this_machine(address) is here
    assert is_this_machine(own_address())


def test_containers_of_this_machine_are_this_machine() -> None:
    bridge = f"stoker{os.getpid() % 10**6}"
    if shutil.which("ip") is None:
        pytest.skip("no program `ip`")
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        assert not is_this_machine("198.18.77.9")
        subprocess.run(["ip", "address", "add", "198.18.77.1/24", "dev", bridge], check=True)
        assert is_this_machine("198.18.77.9")
        assert not is_this_machine("198.18.78.9")
    finally:
        subprocess.run(["ip", "link", "delete", bridge], check=True)
