"""The process of the pages: it is there while somebody looks, and ends by itself."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("pages", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def test_it_serves_who_waits_and_ends_when_nobody_looks_any_more(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "pages.sock"))
    listener.listen()
    waiting = _Connection(tmp_path / "pages.sock")
    waiting.request("GET", "/ui/sign-in")  # before there is a process
    reader, writer = os.pipe()
    settings = {
        "data_dir": str(tmp_path),
        "listen_fd": listener.fileno(),
        "ready_fd": writer,
        "control_socket": str(tmp_path / "nobody.sock"),
        "idle_seconds": 0.5,
    }
    command = [sys.executable, "-m", "stoker_gateway.pages", json.dumps(settings)]
    process = subprocess.Popen(command, pass_fds=(listener.fileno(), writer))
    os.close(writer)
    assert os.read(reader, 100) == b"ready\n"
    assert waiting.getresponse().status == 200
    waiting.close()
    assert process.wait(20) == 0
    os.close(reader)
    listener.close()
