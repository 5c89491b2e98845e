"""Runs the platform with one example deployed: what `make run` starts. Flags go on to `stoker serve`; Ctrl-C stops all."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).parent / "kubecon" / "stack.yml"
STOKER = [sys.executable, "-m", "stoker_cli"]
_POLL_SECONDS = 0.1


def main() -> int:
    flags = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="stoker-run-") as folder:
        ready_file = ready_file_among(flags)
        if ready_file is None:
            ready_file = Path(folder) / "ready.json"
            flags = [*flags, "--ready-file", str(ready_file)]
        ready_file.unlink(missing_ok=True)
        server = subprocess.Popen([*STOKER, "serve", *flags], start_new_session=True)
        # The server gets Ctrl-C from us alone, once, so that it ends in order and we outlive it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.terminate())
        try:
            if wait_until_ready(server, ready_file):
                deploy_example(json.loads(ready_file.read_text()))
            return server.wait()
        finally:
            server.terminate()
            server.wait()


def ready_file_among(flags: list[str]) -> Path | None:
    for at, flag in enumerate(flags):
        if flag == "--ready-file" and at + 1 < len(flags):
            return Path(flags[at + 1])
        if flag.startswith("--ready-file="):
            return Path(flag.partition("=")[2])
    return None


def wait_until_ready(server: subprocess.Popen[bytes], ready_file: Path) -> bool:
    """False when the server has ended instead; it has said why."""
    ended = os.pidfd_open(server.pid)
    while not ready_file.exists():
        if select.select([ended], [], [], _POLL_SECONDS)[0]:
            return False
    return True


def deploy_example(ready: dict[str, str]) -> None:
    environment = os.environ | {"STOKER_DATA_DIR": ready["dataDir"]}
    up = [*STOKER, "up", "-f", str(EXAMPLE), "--gateway", ready["http"]]
    if subprocess.run(up, env=environment, check=False).returncode == 0:
        https = ready["https"].replace("127.0.0.1", "localhost")
        print("\nTry it:")
        print(f"  curl --cacert {ready['ca']} {https}/function/kubecon -d hello")
        print(f"  curl {ready['http']}/function/kubecon -d hello")
        print("Ctrl-C stops everything.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
