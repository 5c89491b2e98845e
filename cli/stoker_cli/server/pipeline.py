"""The process of the git pipeline: started when somebody asks for it, and where there are repositories already."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.github.connection import GitHubSettings
from stoker_builder.pipeline.gitlab.connection import GitLabSettings
from stoker_cli.server.listening import listen_privately
from stoker_cli.server.supervisor import Child
from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.data_dir import DataDir


@dataclass(frozen=True)
class PipelineOptions:
    """The flags of `stoker serve` about git, checked."""

    enabled: bool = True
    runs_at_once: int = 2
    runs_per_owner: int = 1
    max_push: int = 256 * 1024 * 1024
    idle_seconds: float = 300.0
    github: GitHubSettings = field(default_factory=GitHubSettings)
    gitlab: GitLabSettings = field(default_factory=GitLabSettings)
    images: ImageSettings = field(default_factory=ImageSettings)


@dataclass(frozen=True)
class Surroundings:
    """Where a pipeline finds the rest of the platform. `first_id` is 0 where that is not root."""

    gateway: str
    public_url: str
    python: Path
    library_path: str
    first_id: int
    id_count: int


def pipeline_child(
    options: PipelineOptions, data: DataDir, run: RunDir, around: Surroundings, environment: Mapping[str, str]
) -> Child:
    """The child, and its socket, which is ours: who connects while the process is away waits there."""
    listener = listen_privately(run.pipeline_socket)
    settings = {
        "data_dir": str(data.path),
        "listen_fd": listener.fileno(),
        "broker_file": str(run.broker_file),
        "gateway": around.gateway,
        "public_url": around.public_url,
        "python": str(around.python),
        "library_path": around.library_path,
        "first_id": around.first_id,
        "id_count": around.id_count,
        "runs_at_once": options.runs_at_once,
        "runs_per_owner": options.runs_per_owner,
        "max_push": options.max_push,
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
