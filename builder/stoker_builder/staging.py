"""Folders of running builds, and locks on what they make.

Both are locks on files, which the kernel drops with the process: a folder that nobody holds is a dead
build's, and is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stoker_builder.tree import remove_tree, take_back
from stoker_sdk.errors import BadInput

_PREFIX = "run-"
_RETRY = 0.05


@contextmanager
def staging_folder(builds: Path) -> Iterator[Path]:
    """A new folder below `builds` for one build, gone at its end. Other users can pass through it, not list
    it.
    """
    builds.mkdir(parents=True, exist_ok=True)
    builds.chmod(0o711)
    with lock(builds / "lock"):
        _remove_dead(builds)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=builds))
        held = _try_lock(_lock_of(folder))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        remove_tree(folder)
        _lock_of(folder).unlink(missing_ok=True)
        if held is not None:
            os.close(held)


def sealed(path: Path, staging: Path) -> Path:
    """The file or folder that an installer has made, moved to where its user id cannot go, and root's if we are that.
    What that id still runs for other builds can change nothing in it then. Raises `BadInput` where it is neither.
    """
    taken = Path(tempfile.mkdtemp(prefix="sealed-", dir=staging)) / path.name
    try:
        path.rename(taken)
    except FileNotFoundError:
        raise BadInput(f"{path.name} is not there, which the build should have made") from None
    mode = taken.lstat().st_mode
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise BadInput(f"{path.name}, which the build has made, is neither a file nor a folder")
    if os.geteuid() == 0:
        take_back(taken)
    return taken


@contextmanager
def lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`, which is there only as long; `waiting` is called again and again until
    then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while (descriptor := _try_lock(path)) is None:
        waiting()
        time.sleep(_RETRY)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before us removed the file: what we locked is no longer what others find there.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _remove_dead(builds: Path) -> None:
    for folder in builds.glob(f"{_PREFIX}*"):
        if folder.is_dir() and (held := _try_lock(_lock_of(folder))) is not None:
            remove_tree(folder)
            _lock_of(folder).unlink(missing_ok=True)
            os.close(held)


def _lock_of(folder: Path) -> Path:
    return folder.parent / f"lock-{folder.name}"
