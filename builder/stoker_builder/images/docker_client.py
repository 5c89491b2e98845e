"""Which `docker` here builds with BuildKit: found by asking, because clients differ.

Up to release 22 BuildKit's client is built in, and switched on by a variable. Since 23 building belongs to the plug-in
buildx, without which the command refuses. A machine may have several; the one with buildx is the best of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_sdk.errors import StokerError
from stoker_sdk.programs import find_program, output_of

REASON = "images are built and pushed with it"
_VERSION = re.compile(r"\bversion (\d+)\.")
_BUILT_IN = range(19, 23)
"""Major releases that have BuildKit's client in themselves."""
_WITHOUT_GIT: Final = {
    "BUILDX_GIT_INFO": "false",
    "BUILDX_GIT_LABELS": "false",
    "GIT_DIR": os.devnull,
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.bareRepository",
    "GIT_CONFIG_VALUE_0": "explicit",
    "GIT_ALLOW_PROTOCOL": "none",
}
"""buildx asks git about the context, and a repository's own settings name programs that git runs: a context is no
repository, whatever files it has. The first two are for buildx, the others for a git that is run nevertheless.
"""


@dataclass(frozen=True)
class Client:
    """A docker command that builds with BuildKit."""

    program: str
    has_buildx: bool

    def build(self) -> list[str]:
        """The command that builds an image for the Engine's own store, with lines that can be followed."""
        return [self.program, *(("buildx", "build", "--load") if self.has_buildx else ("build",)), "--progress=plain"]

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        built_in = {} if self.has_buildx else {"DOCKER_BUILDKIT": "1"}
        return {**environment, **_WITHOUT_GIT, **built_in}


def find_client(environment: Mapping[str, str]) -> Client:
    """Raises `NotFound` without any docker, `StokerError` when none builds with BuildKit."""
    first = find_program("docker", REASON, environment)
    built_in = None
    for program in _programs(environment):
        if _has_buildx(program, environment):
            return Client(program, has_buildx=True)
        if built_in is None and has_built_in(_version(program, environment)):
            built_in = Client(program, has_buildx=False)
    if built_in is None:
        raise StokerError(f"{first} cannot build with BuildKit: install docker's buildx plug-in and try again")
    return built_in


def find_buildx(environment: Mapping[str, str]) -> Client:
    """One that builds for several platforms. Raises `NotFound`, `StokerError`."""
    client = find_client(environment)
    if not client.has_buildx:
        raise StokerError(
            "docker has no buildx plug-in here, which builds for several platforms: "
            "install it, or use `stoker build` and `stoker push`"
        )
    return client


def has_built_in(version: str) -> bool:
    """Whether what `docker --version` prints is of a client that has BuildKit's in itself."""
    found = _VERSION.search(version)
    return found is not None and int(found[1]) in _BUILT_IN


def _programs(environment: Mapping[str, str]) -> Iterator[str]:
    """Every `docker` of PATH, each once."""
    seen = set()
    for folder in environment.get("PATH", "").split(os.pathsep):
        path = Path(folder, "docker")
        if folder and path.is_file() and os.access(path, os.X_OK) and path.resolve() not in seen:
            seen.add(path.resolve())
            yield str(path)


def _has_buildx(program: str, environment: Mapping[str, str]) -> bool:
    try:
        return bool(output_of([program, "buildx", "version"], environment))
    except StokerError:
        return False


def _version(program: str, environment: Mapping[str, str]) -> str:
    try:
        return output_of([program, "--version"], environment)
    except StokerError:
        return ""
