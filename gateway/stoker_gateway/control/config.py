"""What the control API is told at its start: limits, names and commands, as one frozen value.

The environment and the command line are read elsewhere; this is all that reaches the API.
"""

from __future__ import annotations

from dataclasses import dataclass

from stoker_sdk import __version__
from stoker_sdk.basic_auth import BasicAuth

MIB = 1024 * 1024


@dataclass(frozen=True)
class ControlConfig:
    """Sizes are in bytes, times in seconds."""

    auth: BasicAuth
    release: str = __version__
    commit: str = ""

    body_limit: int = MIB
    """The longest JSON body. A function's spec is a few KiB."""
    secret_body_limit: int = 4 * MIB
    """A secret may have 1 MiB, and faas-cli sends it twice, as text and as base64."""
    counters_wait: float = 2.0
    """How long a listing waits for the proxies' counts before it does without."""
    presence_poll: float = 0.5
    """How often a long answer looks whether its client is still there."""

    build_command: tuple[str, ...] = ()
    """Started for each build with the upload on its input; empty: builds are refused."""
    build_ahead: bool = False
    """Keep one builder started and waiting, so that a build begins 0.1 s sooner; it takes some 25 MB."""
    builds_at_once: int = 1
    """A build keeps a core and some hundred megabytes busy; the others wait in line."""
    upload_limit: int = 512 * MIB
    upload_idle: float = 60.0
    """A client that sends nothing for so long gives up its place."""
    build_timeout: float = 1800.0
    build_grace: float = 5.0
    """How long an ended builder may tidy up before it is killed."""
