"""Stage 1: take the request's tar apart, trusting nothing in it.

The shape is that of `stoker_sdk.archive`: `stoker.json` first, then `handler/...` and perhaps `template/...`.
Only plain files are written, below two folders of our own, by names that cannot lead out of them.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

import msgspec

from stoker_builder.build_secrets import check_build_secret
from stoker_sdk.archive import HANDLER_PREFIX, MAX_BYTES, SETTINGS_NAME, TEMPLATE_PREFIX, BuildSettings
from stoker_sdk.errors import BadInput
from stoker_sdk.names import check_environment_key, check_function_name

MAX_FILES = 20_000
"""Folders count too."""

MAX_PATH = 512
_MAX_SETTINGS = 1 << 20
_HEADERS = 128 << 20
_CHUNK = 1 << 20
_IGNORED_FOLDERS = {"__pycache__", ".git", "node_modules"}


@dataclass(frozen=True)
class Request:
    """What is to be built: `handler` and `template` are folders; the latter only if it came along."""

    name: str
    lang: str
    template_name: str
    build_args: dict[str, str]
    handler: Path
    template: Path | None
    offline: bool = False
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def receive(stream: BinaryIO, folder: Path) -> Request:
    """Unpack the tar (gzip or plain) on `stream` below `folder`. Raises `BadInput`."""
    reader = _Bounded(_decompressed(stream))
    try:
        # A short stream makes tarfile stop without a word, which is why the reader looks for the end mark.
        with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|") as tar:
            settings = _unpack(tar, folder)
        reader.finish()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"the build request is not a whole tar: {error}: send it again") from error
    template = folder / TEMPLATE_PREFIX
    (folder / HANDLER_PREFIX).mkdir(exist_ok=True)
    return Request(
        name=settings.name,
        lang=settings.lang,
        template_name=settings.template or settings.lang,
        build_args=settings.build_args,
        handler=folder / HANDLER_PREFIX,
        template=template if template.is_dir() else None,
        offline=settings.offline,
        secrets=settings.secrets,
    )


def read_settings(data: bytes) -> BuildSettings:
    """The request's `stoker.json`. Raises `BadInput`."""
    try:
        settings = msgspec.json.decode(data, type=BuildSettings)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"{SETTINGS_NAME} of the build request cannot be read: {error}") from error
    check_function_name(settings.name)
    for key, value in settings.build_args.items():
        check_environment_key(key)
        if "\0" in value:
            raise BadInput(f"build argument {key!r} holds a NUL character")
    for key, value in settings.secrets.items():
        check_build_secret(key, value)
    return settings


class _Bounded:
    """A stream that ends with an error after `MAX_BYTES` (and room for headers), and knows its last block."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MAX_BYTES + _HEADERS
        self._last = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise BadInput(_too_large())
        self._last = (self._last + data)[-tarfile.BLOCKSIZE :]
        return data

    def finish(self) -> None:
        """Read to the end. Raises `tarfile.ReadError` if the end mark of a tar is missing."""
        while self.read(_CHUNK):
            pass
        if self._last.strip(b"\0") or len(self._last) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it breaks off")


def _decompressed(stream: BinaryIO) -> BinaryIO:
    peekable = cast("_Peekable", stream)
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if peekable.peek(2)[:2] == b"\x1f\x8b" else stream


class _Peekable:
    """What `sys.stdin.buffer` has beside `BinaryIO`."""

    def peek(self, size: int) -> bytes:
        raise NotImplementedError


def _unpack(tar: tarfile.TarFile, folder: Path) -> BuildSettings:
    members = iter(tar)
    settings = _first(tar, next(members, None))
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    total = 0
    for member, path in _wanted(members):
        total += member.size
        if total > MAX_BYTES:
            raise BadInput(_too_large())
        if path in files:
            raise BadInput(f"{member.name[:200]!r} is twice in the build request")
        files.add(path)
        folders.update(path.parents)
        if len(files) + len(folders) > MAX_FILES:
            raise BadInput(
                f"the build request has more than {MAX_FILES} files and folders: "
                "a handler folder holds source, not data"
            )
        _write(tar, member, folder / path)
    return settings


def _first(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> BuildSettings:
    if member is None or member.name != SETTINGS_NAME or not member.isreg() or member.size > _MAX_SETTINGS:
        raise BadInput(f"the build request does not begin with {SETTINGS_NAME}: send it with the stoker command")
    file = tar.extractfile(member)
    return read_settings(file.read() if file else b"")


def _wanted(members: Iterator[tarfile.TarInfo]) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """The plain files that count, with their checked paths."""
    for member in members:
        path = check_member(member)
        ignored = _IGNORED_FOLDERS.intersection(path.parts) or path.suffix == ".pyc"
        if member.isreg() and not ignored:
            yield member, path


def check_member(member: tarfile.TarInfo) -> PurePosixPath:
    """The member's path, if it is a file or folder below `handler/` or `template/`. Raises `BadInput`."""
    name, path = member.name, PurePosixPath(member.name)
    shown = repr(name[:200])
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise BadInput(f"{shown} in the build request is a link or a special file: replace it by a copy of the file")
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadInput(f"{shown} in the build request leads out of its folder: use plain relative names")
    if not name.isprintable() or len(name.encode()) > MAX_PATH or any(len(part.encode()) > 255 for part in path.parts):
        raise BadInput(f"{shown} in the build request is no usable file name: at most {MAX_PATH} printable characters")
    if not path.parts or path.parts[0] not in (HANDLER_PREFIX, TEMPLATE_PREFIX):
        raise BadInput(f"{shown} in the build request is not below {HANDLER_PREFIX}/ or {TEMPLATE_PREFIX}/")
    if member.isreg() and len(path.parts) == 1:
        raise BadInput(f"{shown} in the build request must be a folder")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"{member.name[:200]!r} is both a file and a folder in the build request") from None
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _too_large() -> str:
    limit = f"{MAX_BYTES >> 20} MiB"
    return f"the build request is larger than {limit} unpacked: a handler folder holds source, not data"
