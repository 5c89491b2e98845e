"""Stage 3: the packages of a function, installed once for everybody who asks for the same.

An environment is a folder named by what it was made from: for Python the interpreter and requirements.txt, for Node its
version, package.json and the lock file. Versions that the text leaves open are those of the first install; pin them to
decide yourself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.build_secrets import check_clean
from stoker_builder.staging import lock, sealed
from stoker_builder.tree import close_tree, digest_of
from stoker_builder.workshop import Workshop


@dataclass(frozen=True)
class Environment:
    """Where the packages are, and who may read them. `digest` is empty, and the path None, if there are
    none.
    """

    digest: str
    path: Path | None
    group: int | None


NO_ENVIRONMENT = Environment("", None, None)


def environment_digest(requirements: str, tag: str) -> str:
    """The name of the environment for a normalised requirements text; empty for an empty text."""
    return digest_of(["environment 1", tag, requirements]) if requirements else ""


def ensure_environment(digest: str, install: Callable[[Path], Path], workshop: Workshop) -> Environment:
    """The environment of that digest, installed now if it is not there yet. Raises `FailedInstall`.

    `install` gets the place where it will lie, fills a folder of the build's own, and returns that.
    """
    if not digest:
        return NO_ENVIRONMENT
    data = workshop.config.data
    path = data.environment(digest)
    with lock(data.builds / "locks" / f"environment-{digest}", workshop.waiting):
        group = workshop.user_for(f"environment:{digest}")
        if path.is_dir():
            workshop.log(f"packages: environment {digest[:12]} is there already")
        else:
            workshop.log(f"packages: installing into environment {digest[:12]}")
            new = sealed(install(path), workshop.staging)
            check_clean(new, workshop.secrets)
            _publish(new, path, group)
    return Environment(digest, path, group)


def _publish(new: Path, path: Path, group: int | None) -> None:
    close_tree(new, group)
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o711)
    os.sync()
    new.rename(path)
