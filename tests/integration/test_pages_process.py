"""The process of the pages: it comes when somebody looks, ends by itself, and takes a GitHub App up while it runs."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from cryptography.fernet import Fernet

from stoker_sdk.data_dir import DataDir
from stoker_sdk.github_app import GitHubApp, store_app

HOST = "pages.example.org"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("pages", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class _Process:
    """The process, on a socket in the folder."""

    def __init__(self, folder: Path, **settings: object) -> None:
        (folder / "password").write_text("secret\n")
        self.path = folder / "pages.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.settings = {"data_dir": str(folder), "control_socket": str(folder / "nobody.sock"), **settings}

    def start(self) -> subprocess.Popen[bytes]:
        """When it is ready."""
        reader, writer = os.pipe()
        settings = self.settings | {"listen_fd": self.listener.fileno(), "ready_fd": writer}
        command = [sys.executable, "-m", "stoker_gateway.pages", json.dumps(settings)]
        process = subprocess.Popen(command, pass_fds=(self.listener.fileno(), writer))
        os.close(writer)
        assert os.read(reader, 100) == b"ready\n"
        os.close(reader)
        return process

    def ask(self, path: str) -> tuple[int, str, str]:
        """Status, where it leads, and text."""
        connection = _Connection(self.path)
        connection.request("GET", path, headers={"Host": HOST})
        answer = connection.getresponse()
        found = answer.status, answer.headers.get("Location", ""), answer.read().decode()
        connection.close()
        return found


def test_people_sign_in_by_the_app_that_was_made_for_this_host(tmp_path: Path) -> None:
    pages = _Process(tmp_path, host=HOST)
    process = pages.start()
    try:
        assert "Sign in with GitHub" not in pages.ask("/ui/sign-in")[2]
        data = DataDir(tmp_path)
        data.key.write_bytes(Fernet.generate_key())
        app = GitHubApp(1, "s", "k", "w", "https://github.com/apps/s", "Iv1.x", "hush", pages_host="other.example.org")
        store_app(data, app)
        assert "Sign in with GitHub" not in pages.ask("/ui/sign-in")[2]
        store_app(data, msgspec.structs.replace(app, pages_host=HOST))
        assert "Sign in with GitHub" in pages.ask("/ui/sign-in")[2]
        status, there, _ = pages.ask("/ui/github")
        query = parse_qs(urlsplit(there).query)
        assert (status, there.partition("?")[0]) == (302, "https://github.com/login/oauth/authorize")
        assert (query["client_id"], query["redirect_uri"]) == (["Iv1.x"], [f"http://{HOST}/ui/github/back"])
    finally:
        process.terminate()
        process.wait(20)
        pages.listener.close()


def test_it_serves_who_waits_and_ends_when_nobody_looks_any_more(tmp_path: Path) -> None:
    pages = _Process(tmp_path, idle_seconds=0.5)
    waiting = _Connection(pages.path)
    waiting.request("GET", "/ui/sign-in")  # before there is a process
    process = pages.start()
    assert waiting.getresponse().status == 200
    waiting.close()
    assert process.wait(20) == 0
    pages.listener.close()
