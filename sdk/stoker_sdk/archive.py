"""The body of a build request: a tar of the handler folder, with its settings in front.

The tar is the same for the same files (sorted, no times, no owners), so what is built is decided by content
alone.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec

from stoker_sdk.errors import BadInput

SETTINGS_NAME = "stoker.json"
HANDLER_PREFIX = "handler"
TEMPLATE_PREFIX = "template"

MAX_BYTES = 512 << 20
"""What the control API takes at most; larger handlers are refused before they are sent."""

_SKIPPED = frozenset({"__pycache__", ".git", "node_modules"})
_IN_MEMORY = 8 << 20


class BuildSettings(msgspec.Struct, frozen=True, rename="camel"):
    """What a build needs beside the files: the first member of the tar, `stoker.json`. With `offline` the function's
    tests have a network of their own, where the platform may make one.
    """

    name: str
    lang: str
    build_args: dict[str, str] = {}
    template: str = ""
    offline: bool = False
    secrets: dict[str, str] = {}
    """Variables of the step that installs packages; they reach no log and nothing that is published."""


def pack(
    settings: BuildSettings, handler: Path, template: Path | None = None, extras: Mapping[str, Path] | None = None
) -> IO[bytes]:
    """The tar in a temporary file, at its beginning; the caller closes it.

    `template` is the folder of an own template, to travel with the handler; `extras` are further files and
    folders by their names in the handler folder. Raises `BadInput` for symbolic links and special files, for
    unreadable ones, for two of one name, and for more than `MAX_BYTES`.
    """
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add_bytes(tar, SETTINGS_NAME, msgspec.json.encode(settings))
            _add_tree(tar, handler, HANDLER_PREFIX)
            for name, path in sorted((extras or {}).items()):
                _add_extra(tar, path, f"{HANDLER_PREFIX}/{name}")
            if template is not None:
                _add_tree(tar, template, TEMPLATE_PREFIX)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _add_extra(tar: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_dir():
        _add_tree(tar, path, name)
    else:
        _add_file(tar, path, name)
    twice = [member for member, count in Counter(tar.getnames()).items() if count > 1]
    if twice:
        raise BadInput(f"{twice[0]} is there twice: in the handler folder, and by `copy` in the stack")


def _add_tree(tar: tarfile.TarFile, folder: Path, prefix: str) -> None:
    for path in _files(folder):
        name = f"{prefix}/{path.relative_to(folder)}"
        try:
            _add_file(tar, path, name)
        except OSError as error:
            raise BadInput(f"{path} cannot be packed: {error.strerror or error}") from None
        if tar.offset > MAX_BYTES:
            raise BadInput(f"{folder} is larger than {MAX_BYTES >> 20} MiB: a handler folder holds source, not data")


def _files(folder: Path) -> Iterator[Path]:
    """Every file to pack, sorted. Empty folders do not count: git knows none either."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from None
    for path in paths:
        if path.name in _SKIPPED:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _add_file(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # Opened before it is looked at, and without following a link, so that what was checked is what is packed.
    _check_kind(path, path.lstat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        _check_kind(path, status.st_mode)
        tar.addfile(_member(name, status.st_size, executable=bool(status.st_mode & 0o100)), file)


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise BadInput(f"{path} is a symbolic link, which a build does not follow: replace it by a copy")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path} is neither a file nor a folder: move it out of the handler folder")


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int, *, executable: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o755 if executable else 0o644
    return member
