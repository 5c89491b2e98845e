"""What a replica is told: one JSON object, written by the provider, read once after the fork.

The fork server never reads it: a child inherits its memory, and one function's environment is no other's business.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Times in seconds, sizes in bytes; 0 means no limit. `paths` go to the front of sys.path, in order.

    `handler` is the module of mode `python`; `command` is the program of the modes that start one. `connections` is
    this replica's share. A replica that is unhealthy for `replace_after` is taken for dead.
    """

    id: str
    function: str
    namespace: str
    revision: int = 0
    socket: str = ""
    mode: str = "python"
    handler: str = "function.handler"
    command: list[str] = field(default_factory=list)
    code: str = ""
    paths: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    log: str = ""
    user: int = -1
    groups: list[int] = field(default_factory=list)
    memory: int = 0
    cores: float = 0.0
    timeout: float = 60.0
    concurrency: int = 0
    max_inflight: int = 0
    threads: int = 32
    secrets: str = ""
    connections: int = 0
    health_delay: float = 0.0
    health_period: float = 2.0
    health_timeout: float = 1.0
    health_failures: int = 3
    health_successes: int = 1
    replace_after: float = 60.0


def read_settings(descriptor: int) -> Settings:
    """Read the file behind a descriptor to its end and close it."""
    with os.fdopen(descriptor, "rb") as file:
        return parse_settings(file.read())


def parse_settings(content: bytes) -> Settings:
    values: dict[str, Any] = json.loads(content)
    return Settings(**values)
