"""The process of the git pipeline: started when somebody asks for it, and where there are repositories already; or by
itself, as in a pod of its own.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.github.connection import GitHubSettings
from stoker_builder.pipeline.gitlab.connection import GitLabSettings
from stoker_cli.server.supervisor import Child
from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.data_dir import DataDir


@dataclass(frozen=True)
class PipelineOptions:
    """The flags of `stoker serve` about git, checked. `elsewhere` is the address of a pipeline that is not ours."""

    enabled: bool = True
    elsewhere: str = ""
    runs_at_once: int = 2
    runs_per_owner: int = 1
    max_push: int = 256 * 1024 * 1024
    max_repositories: int = 4 * 1024**3
    idle_seconds: float = 300.0
    """0: it stays."""
    github: GitHubSettings = field(default_factory=GitHubSettings)
    gitlab: GitLabSettings = field(default_factory=GitLabSettings)
    images: ImageSettings = field(default_factory=ImageSettings)


@dataclass(frozen=True)
class Surroundings:
    """Where a pipeline finds the rest of the platform. `namespace` is empty for the default one, `first_id` 0 where it
    is not root.
    """

    gateway: str
    public_url: str
    password_file: Path
    seal_key: Path
    python: Path
    library_path: str
    first_id: int
    id_count: int
    namespace: str = ""
    ready_seconds: float = 120.0


def pipeline_child(
    options: PipelineOptions,
    data: DataDir,
    run: RunDir,
    around: Surroundings,
    listener: socket.socket,
    environment: Mapping[str, str],
) -> Child:
    """The child. The listening socket is ours: who connects while the process is away waits there."""
    settings = {
        "data_dir": str(data.path),
        "listen_fd": listener.fileno(),
        "broker_file": str(run.broker_file),
        "gateway": around.gateway,
        "public_url": around.public_url,
        "namespace": around.namespace,
        "ready_seconds": around.ready_seconds,
        "password_file": str(around.password_file),
        "seal_key": str(around.seal_key),
        "python": str(around.python),
        "library_path": around.library_path,
        "first_id": around.first_id,
        "id_count": around.id_count,
        "runs_at_once": options.runs_at_once,
        "runs_per_owner": options.runs_per_owner,
        "max_push": options.max_push,
        "max_repositories": options.max_repositories,
        "idle_seconds": options.idle_seconds,
        "github": msgspec.to_builtins(options.github),
        "gitlab": msgspec.to_builtins(options.gitlab),
        "images": msgspec.to_builtins(options.images),
    }

    def command(ready: int) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker_builder.pipeline", json.dumps(settings | {"ready_fd": ready})]

    return Child("the pipeline", command, environment, (listener.fileno(),), wanted_by=listener)


def has_repositories(options: PipelineOptions, data: DataDir) -> bool:
    """Whether runs may be open from an earlier life, or pushes were missed meanwhile."""
    connected = (options.github.app_id, options.github.token_file, options.gitlab.token_file)
    return any(connected) or data.github_app.exists() or data.git.is_dir()
