"""Folders as values: what they hold as one digest, and how they are closed before they are published."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_MANY_FILES = 100


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below `folder`, in an order that only depends on the names. Links are left out."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def digest_of(parts: Iterable[str | bytes]) -> str:
    """SHA-256 over the parts, each with its length, so that no two lists of parts look the same. 64 hex
    digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def digest_tree(folder: Path) -> str:
    """The digest of names, contents and executable bits below `folder`; times and owners do not count."""
    parts: list[str] = []
    for path in files_below(folder):
        executable = "x" if path.stat().st_mode & 0o100 else "-"
        with path.open("rb") as file:
            parts += [
                str(path.relative_to(folder)),
                executable,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
    return digest_of(parts)


def copy_tree(source: Path, target: Path) -> None:
    """Copy the regular files below `source` into `target`, over what is there, with their executable bit."""
    for path in files_below(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def hand_over(folder: Path, user: int) -> None:
    """Make everything below `folder`, and itself, the property of `user` (root only).

    What is below comes first: who can change a folder could put something else in the place of what it holds.
    """
    for path in reversed(list(_all_of(folder))):
        os.chown(path, user, user, follow_symlinks=False)


def take_back(folder: Path) -> None:
    """Make everything below `folder`, and itself, root's (root only); so what is below comes last."""
    for path in _all_of(folder):
        os.chown(path, 0, 0, follow_symlinks=False)


def close_tree(folder: Path, group: int | None) -> None:
    """Make everything below `folder` read-only.

    With a `group` (root only) it belongs to root, and that group alone can read it. Without one, files lose
    their write permission; folders keep it, so that their owner can remove them.
    """
    for path in _all_of(folder):
        if group is not None:
            os.chown(path, 0, group, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(_closed_mode(path, group))


def make_durable(folder: Path) -> None:
    """Return when everything below `folder` is on the disk. A few files alone do not wait for the whole machine's
    writes; for many, one `sync` is quicker.
    """
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in ("", *names)]
    if len(paths) > _MANY_FILES:
        os.sync()
        return
    for path in paths:
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove the folder, also where its owner took away permissions inside, or nested folders deeper than a path may be
    long. Missing is fine.

    Nothing is walked down: the folders of a folder become its neighbours, and what is emptied then is never far below.
    """
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    mark, number = secrets.token_hex(8), 0  # of names that nobody can have taken
    with _opened(str(folder)) as top:
        waiting = _emptied_of_files(top)
        while waiting:
            name = waiting.pop()
            with _opened(name, top) as inner:
                for below in _emptied_of_files(inner):
                    number += 1
                    waiting.append(f".{mark}-{number}")
                    with _opened(below, inner):  # what moves must be writable
                        os.rename(below, waiting[-1], src_dir_fd=inner, dst_dir_fd=top)
            os.rmdir(name, dir_fd=top)
    folder.rmdir()


@contextmanager
def _opened(name: str, parent: int | None = None) -> Iterator[int]:
    """A descriptor of the folder, whose permissions are taken back. What is done by it is done there, also if its owner
    puts a link in the place of its name meanwhile.
    """
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as held:
        place = os.open(name, flags | os.O_PATH, dir_fd=parent)
        held.callback(os.close, place)
        Path(f"/proc/self/fd/{place}").chmod(0o700)
        folder = os.open(".", flags, dir_fd=place)
        held.callback(os.close, folder)
        yield folder


def _emptied_of_files(folder: int) -> list[str]:
    """Remove all from a folder but its folders, whose names are the answer."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def _closed_mode(path: Path, group: int | None) -> int:
    others = 0 if group is not None else 0o005
    if path.is_dir():
        return 0o750 | others
    execute = 0o110 if path.stat().st_mode & 0o100 else 0
    if group is not None:
        return 0o640 | execute
    return 0o444 | execute | (execute and 0o001)


def _all_of(folder: Path) -> Iterator[Path]:
    """Itself and everything below, each folder before what it holds; links are not gone into."""
    yield folder
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            yield Path(parent, name)
