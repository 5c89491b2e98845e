"""`--debug`: debugpy for one function. It is installed beside the function's packages, and only while debugging."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uv

from stoker_builder.config import index_environment
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import StokerError
from stoker_sdk.function import ANNOTATION_PREFIX

_WANTED = "debugpy>=1.8,<2"
_TIMEOUT = "24h"
"""A call that stands at a breakpoint must not be cut off."""
_SHOWN_LINES = 4


@dataclass(frozen=True)
class Debugger:
    """debugpy in a folder that every user may read, and the port to listen on."""

    path: Path
    port: int

    def variables(self, source: Path) -> dict[str, str]:
        """What the replica must be told; `source` is the function's folder in the project."""
        return {
            "STOKER_DEBUG_PORT": str(self.port),
            "STOKER_DEBUG_PATH": str(self.path),
            "STOKER_DEBUG_SOURCE": str(source),
        }

    @property
    def annotations(self) -> dict[str, str]:
        return {f"{ANNOTATION_PREFIX}timeout": _TIMEOUT}


def install_debugger(data: DataDir, port: int, environment: Mapping[str, str]) -> Debugger:
    """Install debugpy below the data folder, unless it is there. Raises `StokerError` with uv's last lines."""
    path = data.path / f"debugpy-{sys.implementation.cache_tag}"
    if not path.is_dir():
        new = data.path / f".new-{path.name}"
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--color", "never", "--link-mode", "copy"]
        command += ["--python", sys.executable, "--target", str(new), _WANTED]
        done = subprocess.run(
            command,
            env={**environment, **index_environment(environment)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            umask=0o022,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()[-_SHOWN_LINES:]
            raise StokerError(f"debugpy cannot be installed: {' '.join(line.strip() for line in lines)}")
        new.chmod(0o755)
        new.rename(path)
    return Debugger(path, port)
