"""Stage 3: the packages of requirements.txt, installed once for everybody who asks for the same.

An environment is a folder for `sys.path`, named by interpreter and text. Versions that the text leaves open
are those of the first install; pin them to decide yourself.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.child import Account, Limits, Program, TimedOut
from stoker_builder.errors import FailedInstall
from stoker_builder.staging import lock
from stoker_builder.tree import close_tree, digest_of, hand_over
from stoker_builder.workshop import Workshop

_KEPT_LINES = 6

# Copies, not links: a link would share owner and mode with the cache, and with other environments.
_INSTALL = ["pip", "install", "--no-progress", "--color", "never", "--link-mode", "copy"]


@dataclass(frozen=True)
class Environment:
    """Where the packages are, and who may read them. `digest` is empty, and the path None, if there are
    none.
    """

    digest: str
    path: Path | None
    group: int | None


def environment_digest(requirements: str, tag: str) -> str:
    """The name of the environment for a normalised requirements text; empty for an empty text."""
    return digest_of(["environment 1", tag, requirements]) if requirements else ""


def ensure_environment(digest: str, requirements: str, workshop: Workshop) -> Environment:
    """The environment of that digest, installed now if it is not there yet. Raises `FailedInstall`."""
    if not digest:
        return Environment("", None, None)
    data = workshop.config.data
    path = data.environment(digest)
    with lock(data.builds / "locks" / f"environment-{digest}", workshop.waiting):
        group = workshop.user_for(f"environment:{digest}")
        if path.is_dir():
            workshop.log(f"packages: environment {digest[:12]} is there already")
        else:
            workshop.log(f"packages: installing into environment {digest[:12]}")
            new = _install(requirements, workshop)
            _compile(new, path, workshop)
            _publish(_sealed(new, workshop), path, group)
    return Environment(digest, path, group)


def _install(requirements: str, workshop: Workshop) -> Path:
    listed = workshop.staging / "requirements.txt"
    listed.write_text(requirements)
    listed.chmod(0o644)
    target = _own_folder(workshop.staging / "environment", workshop)
    command = [*_INSTALL, "--target", str(target), "-r", str(listed)]
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def on_line(line: str) -> None:
        last.append(line.strip())
        workshop.log(line)

    try:
        code = workshop.children.run(_uv(command, workshop), on_line)
    except TimedOut as error:
        raise FailedInstall(f"requirements.txt: the install {error}: try again, or pin the versions") from None
    if code:
        raise FailedInstall(f"requirements.txt cannot be installed: {' '.join(filter(None, last))}")
    return target


def _compile(new: Path, final: Path, workshop: Workshop) -> None:
    """Byte-compile for good: nobody can write there later. Files that are no Python of this version are
    left.
    """
    command = [str(workshop.interpreter.python), "-S", "-m", "compileall", "-qq", "-j", "0"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(new), "-p", str(final), str(new)]
    workshop.children.run(_program(command, workshop), lambda _line: None)


def _uv(command: list[str], workshop: Workshop) -> Program:
    interpreter = workshop.interpreter
    return _program([str(interpreter.uv), *command, "--python", str(interpreter.python)], workshop)


def _program(command: list[str], workshop: Workshop) -> Program:
    config, library_path = workshop.config, workshop.interpreter.library_path
    variables = {
        **config.index_environment,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(_own_folder(config.data.builds / "home", workshop)),
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": str(_own_folder(config.data.builds / "cache", workshop)),
        "UV_PYTHON_DOWNLOADS": "never",
        **({"LD_LIBRARY_PATH": library_path} if library_path else {}),
    }
    user = workshop.user_for("builder")
    account = None if user is None else Account(user)
    return Program(command, config.data.builds, variables, Limits(config.install_timeout), account)


def _own_folder(path: Path, workshop: Workshop) -> Path:
    """The folder, made for the id that installs if it is not there."""
    path.mkdir(mode=0o700, exist_ok=True)
    user = workshop.user_for("builder")
    if user is not None and path.stat().st_uid != user:
        hand_over(path, user)
    return path


def _sealed(new: Path, workshop: Workshop) -> Path:
    """Out of reach of whatever the installer's user id still runs for other builds."""
    folder = workshop.staging / "sealed"
    folder.mkdir(mode=0o700)
    return new.rename(folder / "environment")


def _publish(new: Path, path: Path, group: int | None) -> None:
    close_tree(new, group)
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o711)
    os.sync()
    new.rename(path)
