"""What a command may know of the process that it runs in, gathered once by `main`.

Commands get this value instead of looking at the process, so that a test can run them in another world.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stoker_sdk.data_dir import DataDir, default_data_dir

if TYPE_CHECKING:
    from stoker_sdk.credentials import CredentialStore

_DOCKER_HOST = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Surroundings:
    """Environment variables, the user's home folder, and whether the user is root."""

    environment: Mapping[str, str]
    home: Path
    is_root: bool

    @classmethod
    def of_process(cls) -> Surroundings:
        return cls(dict(os.environ), Path(os.environ.get("HOME") or "/"), os.geteuid() == 0)

    @property
    def data_dir(self) -> DataDir:
        return default_data_dir(self.environment, is_root=self.is_root)

    def docker_host(self, flag: str | None) -> str:
        """The address of the Docker Engine, unless the flag names one."""
        return flag or self.environment.get("DOCKER_HOST", "") or _DOCKER_HOST

    @property
    def credentials(self) -> CredentialStore:
        from stoker_sdk.credentials import CredentialStore, config_folder

        return CredentialStore(config_folder(self.environment, self.home))
