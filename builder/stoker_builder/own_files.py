"""A view of the machine's files for programs of strangers: all is read-only but one folder, and the places where
everybody may write are the build's own (mount_namespaces(7)). So what a build writes is where it is counted, and goes
with it.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWIPC: Final = 0x08000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_SYS_MOUNT_SETATTR: Final = 442
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_MOUNT_ATTR_RDONLY: Final = 1
_PUBLIC: Final = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class OwnFiles:
    """`writable` stays so, as far as permissions let; `visible` stays to be seen, also where it lies below `/tmp`."""

    writable: Path
    visible: tuple[Path, ...] = ()

    def enter(self, temporary: Path) -> None:
        """From now on this process sees them so, with the folder `temporary` in place of `/tmp` and its like, and
        shared memory and message queues of its own. Needs root, and one thread. Raises OSError.
        """
        _unshare()
        shown = [path for path in dict.fromkeys((self.writable, *self.visible)) if path.exists()]
        # By descriptors, since the first mount may hide the names.
        held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (temporary, *shown)}
        places = [place for place in map(Path, _PUBLIC) if place.is_dir() and not place.is_symlink()]
        for place in places:
            _bind(held[temporary], place)
        for path in shown:
            if path == self.writable or any(path.is_relative_to(place) for place in places):
                _make_place(path, folder=stat.S_ISDIR(os.fstat(held[path]).st_mode))
                _bind(held[path], path)
        _set_all_read_only()
        for path in (*places, self.writable):
            _set_writable(path)
        for descriptor in held.values():
            os.close(descriptor)


def may_have_own_files() -> bool:
    """Whether this process may give that to others. Asked of the kernel, in a process for that alone."""
    if os.geteuid() != 0:
        return False
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _unshare()
            _set_all_read_only()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def paths_in(values: Iterable[str]) -> tuple[Path, ...]:
    """The files and folders that these variables name: an index's wheels, a certificate."""
    words = (word.removeprefix("file://") for value in values for word in value.replace(",", " ").split())
    return tuple(Path(word) for word in words if word.startswith("/") and len(word) > 1)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of its own")
    libc.unshare(_CLONE_NEWIPC)  # what it has outlives who made it; a kernel without any needs no own
    _mount(None, "/", _MS_REC | _MS_PRIVATE)


def _bind(source: int, target: Path) -> None:
    _mount(f"/proc/self/fd/{source}", str(target), _MS_BIND)


def _mount(source: str | None, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode() if source else None, target.encode(), None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), "cannot be mounted", target)


def _make_place(path: Path, *, folder: bool) -> None:
    (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    if not folder:
        path.touch()


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def _set_all_read_only() -> None:
    _change(Path("/"), _MountAttr(set=_MOUNT_ATTR_RDONLY), _AT_RECURSIVE)


def _set_writable(path: Path) -> None:
    _change(path, _MountAttr(clear=_MOUNT_ATTR_RDONLY), 0)


def _change(path: Path, attributes: _MountAttr, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = ctypes.c_char_p(str(path).encode())
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, name, flags, ctypes.byref(attributes), size) != 0:
        raise OSError(ctypes.get_errno(), "cannot be made read-only or writable", str(path))
