"""A real `stoker pipeline` beside a platform that was started with `--pipeline`.

with RunningPipeline(port, nats.url, platform) as pipeline:
    pipeline.kill()                     # or stop(); start() begins its next life on the same folder
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType

from running_platform import PYTHONPATH, Platform, wait_for


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class RunningPipeline:
    """`flags` are further ones of the command. Its folder stays when it ends, and goes with `close`."""

    def __init__(self, port: int, nats: str, platform: Platform, *flags: str) -> None:
        # Not in tmp_path, which other user ids cannot pass through.
        self._temporary = tempfile.TemporaryDirectory(prefix="stoker-pipeline-", dir="/tmp")
        self.folder = Path(self._temporary.name)
        self.folder.chmod(0o711)
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "stoker_cli", "pipeline", "--data-dir", str(self.folder / "data")),
            *("--listen", f"127.0.0.1:{port}", "--nats", nats, "--gateway", platform.http_url),
            *("--password-file", str(platform.data.password), *flags),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Another one on the same folder, whether or not one runs."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": PYTHONPATH}
        environment["XDG_RUNTIME_DIR"] = str(self.folder / "runtime")
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def start(self) -> RunningPipeline:
        self._process = self.spawn()
        self.wait_until_it_answers()
        return self

    def wait_until_it_answers(self) -> None:
        wait_for(self._answers, "an answer of the pipeline")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._ended()

    def kill(self) -> None:
        """All of it at once, as when its pod is gone: the others go with their supervisor."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        code = self._process.wait(30)
        self._process = None
        return code

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def __enter__(self) -> RunningPipeline:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print(self.log)
        if self._process is not None:
            self.kill()
        self._temporary.cleanup()
