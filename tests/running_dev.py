"""A real `stoker dev` on a project of its own, for tests to save files under.

dev = make_dev({"greet": HANDLER})           # fixture; writes stack.yml and the handlers, and waits until all are up
dev.save("greet/handler.py", "...")
dev.wait_for_answer("greet", b"new")
dev.wait_for_text("reloaded")                # in what the command printed
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from running_platform import PYTHONPATH, Answer, Platform, is_alive, wait_for

_MARK = "STOKER_TEST_DEV"
_INDEX = ("UV_", "PIP_", "SSL_", "XDG_CONFIG_")


class Dev:
    """A project folder, and the command that runs on it."""

    def __init__(self, functions: Mapping[str, str], *, like: Platform, lang: str = "python3-http") -> None:
        # Not in tmp_path, which other user ids cannot pass through.
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-dev-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.project, self.data = self.folder / "project", self.folder / "data"
        self.project.mkdir()
        self.data.mkdir(mode=0o711)
        shutil.copytree(like.data.interpreter, self.data / "interpreter", symlinks=True, copy_function=os.link)
        self._lang = lang
        self._log = self.folder / "dev.log"
        self._ready_file = self.folder / "ready.json"
        self._token = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self.addresses: dict[str, Any] = {}
        for name, handler in functions.items():
            self.save(f"{name}/handler.py", handler)
        self.save("stack.yml", self.stack(*functions))

    def stack(self, *names: str, more: str = "") -> str:
        """A stack file's text; `more` are lines for each function, indented by four."""
        entries = (
            f"  {name}:\n    lang: {self._lang}\n    handler: ./{name}\n    image: {name}\n{more}" for name in names
        )
        return "provider:\n  name: openfaas\nfunctions:\n" + "".join(entries)

    def save(self, path: str, text: str) -> None:
        """As most editors do: a new file takes the name of the old one."""
        target = self.project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new~")
        new.write_text(text)
        new.rename(target)

    # Its life

    def start(self, *flags: str) -> Dev:
        self.process = self.run(*flags)
        self.addresses = wait_for(self._read_ready_file, "the ready file", 60)
        return self

    def run(self, *flags: str) -> subprocess.Popen[bytes]:
        index = {name: value for name, value in os.environ.items() if name.startswith(_INDEX)}
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": PYTHONPATH}
        command = [sys.executable, "-m", "stoker_cli", "dev", "--port", "0", "--data-dir", str(self.data)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--ready-file", str(self._ready_file), *flags],
                cwd=self.project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | index | {"XDG_RUNTIME_DIR": str(self.folder / "run"), _MARK: self._token},
            )

    def _read_ready_file(self) -> dict[str, Any] | None:
        assert self.process is not None and self.process.poll() is None, f"stoker dev ended:\n{self.printed}"
        return json.loads(self._ready_file.read_text()) if self._ready_file.exists() else None

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C, and wait; returns the exit code. Nothing that it started may be left."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        wait_for(lambda: not self.processes(), "the end of every process", 10)
        return code

    def delete(self) -> None:
        try:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            wait_for(lambda: not self.processes(), "the end of every process", 10)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """Every process that was started by this command, on whatever way, and lives: by a mark, or by its folder."""
        marks = (f"{_MARK}={self._token}".encode(), os.fsencode(self.data))
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                known = Path(f"/proc/{name}/environ").read_bytes() + Path(f"/proc/{name}/cmdline").read_bytes()
                known += os.fsencode(Path(f"/proc/{name}/cwd").readlink())
            except OSError:
                continue
            if any(mark in known for mark in marks) and is_alive(int(name)):
                found.append(int(name))
        return found

    # What is seen of it

    @property
    def printed(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_for_text(self, text: str, times: int = 1, seconds: float = 20) -> None:
        try:
            wait_for(lambda: self.printed.count(text) >= times, text, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed:\n{self.printed}") from None

    def call(
        self,
        name: str,
        body: bytes = b"",
        *,
        path: str = "",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        host, _, port = str(self.addresses["http"]).removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, f"/function/{name}{path}", body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def wait_for_answer(self, name: str, body: bytes, seconds: float = 20) -> None:
        try:
            wait_for(lambda: self.call(name).body == body, f"the answer {body!r}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed:\n{self.printed}") from None
