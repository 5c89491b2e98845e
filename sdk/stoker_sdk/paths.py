"""Paths that must stay inside a folder: handlers and the files that a stack names.

A stack can come from a stranger's repository, so neither `..`, nor an absolute path, nor a symbolic link may
make the platform read what lies outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stoker_sdk.errors import BadInput


def inside(folder: Path, name: str, what: str) -> Path:
    """`folder/name`, symbolic links resolved. Raises `BadInput` (`what` names the value) when that is
    outside.
    """
    if not name or "\0" in name:
        raise BadInput(f"{what}: must be a path, and is {name[:40]!r}")
    if Path(name).is_absolute():
        raise BadInput(f"{what}: {name!r} is an absolute path: write it relative to the stack's folder")
    root = folder.resolve()
    path = _resolved(root / name, what)
    if not path.is_relative_to(root):
        raise BadInput(f"{what}: {name!r} leaves the stack's folder: keep the source beside the stack file")
    return path


def check_tree(folder: Path, what: str) -> None:
    """Raise `BadInput` when any symbolic link under `folder` points to something outside of it."""
    root = folder.resolve()
    for entry in _entries(root):
        if not entry.is_symlink():
            continue
        path = Path(entry.path)
        if not _resolved(path, what).is_relative_to(root):
            shown = path.relative_to(root)
            raise BadInput(f"{what}: {str(shown)!r} is a symbolic link that leaves the folder: replace it by a copy")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))


def _resolved(path: Path, what: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        raise BadInput(f"{what}: {str(path.name)!r} is a symbolic link that leads back to itself") from None
