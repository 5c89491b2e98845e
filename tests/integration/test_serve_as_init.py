"""`stoker serve` as process 1, as it is in a container: its children must not take it for a parent that has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_platform import PYTHONPATH, wait_for


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that functions' users can enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace of our own needs root")
def test_everything_starts_and_ends(folder: Path) -> None:
    ready = folder / "ready.json"
    flags = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--proxies", "1"]
    flags += ["--data-dir", str(folder / "data"), "--ready-file", str(ready)]
    in_namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*in_namespace, sys.executable, "-P", "-m", "stoker_cli", "serve", *flags],
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: ready.exists() or process.poll() is not None, "the platform", 60)
        assert process.poll() is None, (folder / "log").read_text()
        assert json.loads(ready.read_text())["pid"] == 1
        server = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        os.kill(int(server), signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
