"""A real watchdog of a container, on free ports and with a folder for temporary files of its own."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from running_platform import PYTHONPATH, Answer, is_alive, wait_for

PROGRAMS = Path(__file__).parents[1] / "programs"
_LISTENING = re.compile(r"Listening on port: (\d+), metrics on port: (\d+)")

PROGRAM = f"{sys.executable} -S -E {PROGRAMS / 'any_mode.py'}"
MODES: Mapping[str, Mapping[str, str]] = {
    "python": {"handler": "any_mode"},
    "http": {"fprocess": f"{PROGRAM} serve", "upstream_url": "http://127.0.0.1:0"},
    "streaming": {"fprocess": PROGRAM},
    "serializing": {"fprocess": PROGRAM},
    "classic": {"fprocess": PROGRAM},
}


class WatchdogProcess:
    """`port` and `metrics_port` are there when it listens; `log` is what it has printed."""

    def __init__(self, folder: Path, options: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.lock = folder / ".lock"
        self._log = folder / "watchdog.log"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{PYTHONPATH}:{PROGRAMS}",
            "TMPDIR": str(folder),
            "port": "0",
            "STOKER_METRICS_PORT": "0",
            "healthcheck_interval": "0",
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "stoker_watchdog"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment | options,
                cwd=folder,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_listening(self) -> None:
        def ports() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return _LISTENING.search(self.log)

        self.port, self.metrics_port = map(int, wait_for(ports, "the watchdog to listen").groups())

    def wait_ready(self) -> WatchdogProcess:
        self.wait_listening()
        wait_for(lambda: self.call("/_/ready", method="GET").status == 200, f"readiness: {self.log}")
        return self

    def call(
        self,
        path: str = "/",
        body: bytes | Iterator[bytes] | None = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, bytes))
            response = connection.getresponse()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A bare connection, for what a client library would hide."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metrics(self) -> str:
        return self.call("/metrics", method="GET", port=self.metrics_port).text

    @property
    def descriptors(self) -> list[str]:
        folder = Path(f"/proc/{self.pid}/fd")
        return sorted(str(path.readlink()) for path in folder.iterdir() if path.is_symlink())

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split() if is_alive(int(pid))]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def watchdog(folder: Path, mode: str, ready: bool = True, **options: str) -> Iterator[WatchdogProcess]:
    """One in this mode with the function for every mode, or with other options."""
    one = WatchdogProcess(folder, {"mode": mode} | MODES.get(mode, {}) | options)
    try:
        if ready:
            one.wait_ready()
        yield one
    finally:
        one.stop()
