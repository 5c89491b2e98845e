"""A Docker Engine for one test, which may end it; without rules in the firewall, so that it disturbs no other."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from running_platform import wait_for

_BRIDGE, _ADDRESS = "stk-engine", "172.30.253.1/24"


class OwnEngine:
    """`host` is what `--docker-host` takes. Its containers are on bridges that only this machine reaches."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stk-engine-", dir="/tmp"))
        self.host = f"unix://{self._folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OwnEngine:
        folders = [f"--{name}={self._folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        if not Path("/sys/class/net", _BRIDGE).exists():  # it outlives a kill
            # With `--bridge=none` the Engine would remove docker0, whosever that is.
            _run("ip", "link", "add", _BRIDGE, "type", "bridge")
            _run("ip", "address", "add", _ADDRESS, "dev", _BRIDGE)
        command = [
            "/usr/sbin/dockerd",
            "-H",
            self.host,
            *folders,
            f"--bridge={_BRIDGE}",
            "--iptables=false",
            "--ip-masq=false",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, "the Engine", 60)
        return self

    def docker(self, *arguments: str) -> str:
        return subprocess.run(
            ["/usr/bin/docker", "-H", self.host, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def _answers(self) -> bool:
        try:
            self.docker("version")
        except subprocess.CalledProcessError:
            return False
        return True

    def end(self) -> None:
        """With its containers."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)
        _run("ip", "link", "delete", _BRIDGE)

    def kill(self) -> None:
        """By SIGKILL: its containers run on until it is started again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)
        # Its containerd goes with it. Where nobody waits for orphans, the next Engine would take its remains for alive.
        (self._folder / "exec-root" / "containerd" / "containerd.pid").unlink()

    def delete(self) -> None:
        if self._process is not None and Path("/sys/class/net", _BRIDGE).exists():
            if self._process.poll() is not None:
                self.start()  # only it can end what it has left
            self.end()
        while (
            f" {self._folder}/data-root " in Path("/proc/self/mountinfo").read_text()
        ):  # one that was killed leaves it
            _run("umount", f"{self._folder}/data-root")
        shutil.rmtree(self._folder, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
