"""A disk that loses its power: a real ext4 on a loop device, whose image keeps only what was flushed to it.

    disk = LosingDisk(folder)       # skips the test where there is no root, no FUSE or no loop device
    disk.power_on()                 # ext4 is mounted on `folder`
    disk.power_off(chance)          # from this moment nothing reaches the medium, and a flush fails
    disk.pull_out()                 # when its users have been killed: unmount
    disk.power_on()                 # what the medium had, after ext4's own recovery

The loop device's file is served by a process of ours (`python losing_disk.py`, FUSE's protocol without a library). It
does what a disk with a volatile cache does: a write is seen by later reads at once, and reaches the medium with the
next flush, which the kernel sends for every fsync and every commit of ext4's journal. When the power goes, of what was
written since the last flush each sector of 512 bytes arrives or not, by chance. So writes are lost, torn, and out of
order, as a real disk may do it; what was flushed is there. What is still in the kernel's page cache never comes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import select
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from running_platform import wait_for

SIZE = 2 * 1024**3
SECTOR = 512


class LosingDisk:
    """One disk. Its medium and cache are (sparse) files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        import pytest

        if reason := missing():
            pytest.skip(reason)
        self.folder = folder
        self._own = Path(tempfile.mkdtemp(prefix="stoker-disk-", dir="/tmp"))
        self._medium = self._own / "medium"
        self._file = self._own / "file"
        self._file.touch()
        self._loop = ""
        self._server: subprocess.Popen[str] | None = None
        with self._medium.open("wb") as medium:
            medium.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", str(self._medium))

    def power_on(self) -> None:
        command = [sys.executable, __file__, str(self._medium), str(self._own / "cache"), str(self._file)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        self._loop = _run("losetup", "--find", "--show", str(self._file))
        _run("mount", "-t", "ext4", self._loop, str(self.folder))

    def power_off(self, chance: random.Random) -> str:
        """Returns what was lost, for people."""
        assert self._server is not None and self._server.stdin is not None
        self._server.stdin.write(f"{chance.randrange(2**32)}\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._server is not None and self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the disk's process has ended"
        return line.strip()

    def pull_out(self) -> None:
        """Unmount it; waits until the kernel has let go of what its users had open."""
        if self._loop:
            wait_for(lambda: _unmounted(self.folder), f"{self.folder} to be unmounted")
            _run("losetup", "--detach", self._loop)
            self._loop = ""
        if self._server is not None:
            wait_for(lambda: _unmounted(self._file), f"{self._file} to be unmounted")
            self._server.communicate(timeout=20)  # it ends with its mount
            self._server = None

    def delete(self) -> None:
        self.pull_out()
        shutil.rmtree(self._own)


def missing() -> str:
    """Why there can be no such disk here; empty if there can."""
    if os.geteuid() != 0:
        return "a disk that loses its power needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as error:
            return f"a disk that loses its power needs {path}: {error.strerror}"
    for program in ("mkfs.ext4", "losetup", "mount"):
        if shutil.which(program) is None:
            return f"a disk that loses its power needs the program {program}"
    return ""


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


def _unmounted(path: Path) -> bool:
    if os.path.ismount(path):
        subprocess.run(["umount", str(path)], check=False, capture_output=True)
    return not os.path.ismount(path)


# The disk's own process

_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_READ = struct.Struct("<QQIIQII")  # and that of a write, whose data follow
_ATTRIBUTES = struct.Struct("<QII6Q10I")
_INIT = struct.Struct("<4I2HIIHHI7I")
_GETATTR, _SETATTR, _OPEN, _READING, _WRITING, _RELEASE, _FSYNC, _FLUSH, _INITIAL = 3, 4, 14, 15, 16, 18, 20, 25, 26
_SILENT = (2, 36, 42)  # forget, interrupt, forget many: nobody waits for an answer
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_LARGEST = 1024 * 1024
_MODE = stat.S_IFREG | 0o600


class Cache:
    """What is written, and what of it is on the medium."""

    def __init__(self, medium: int, cache: int) -> None:
        self._medium = medium
        self._cache = cache
        self._unflushed: list[tuple[int, bytes]] = []
        self.powered = True

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._cache, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._cache, data, offset)
        self._unflushed.append((offset, data))

    def flush(self) -> None:
        for offset, data in self._unflushed:
            os.pwrite(self._medium, data, offset)
        self._unflushed.clear()

    def power_off(self, chance: random.Random) -> str:
        kept = lost = 0
        for offset, data in self._unflushed:
            for start in range(0, len(data), SECTOR):
                if chance.random() < 0.5:
                    os.pwrite(self._medium, data[start : start + SECTOR], offset + start)
                    kept += 1
                else:
                    lost += 1
        self.powered = False
        return f"{lost} unflushed sectors lost, {kept} written"


def serve(device: int, cache: Cache) -> None:
    """Answer the kernel until the file is unmounted; a line of input, the seed, takes the power."""
    while True:
        readable, _, _ = select.select([device, sys.stdin], [], [])
        if sys.stdin in readable and (line := sys.stdin.readline()):
            print(cache.power_off(random.Random(int(line))), flush=True)
        if device not in readable:
            continue
        try:
            message = os.read(device, _LARGEST + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        _length, word, unique, *_rest = _IN.unpack_from(message)
        if word not in _SILENT:
            try:
                code, answer = 0, _answer(word, memoryview(message)[_IN.size :], cache)
            except OSError as error:
                code, answer = error.errno or errno.EIO, b""
            os.write(device, _OUT.pack(_OUT.size + len(answer), -code, unique) + answer)


def _answer(word: int, arguments: memoryview, cache: Cache) -> bytes:
    if word == _INITIAL:
        return _INIT.pack(7, 31, _LARGEST, _BIG_WRITES | _MAX_PAGES, 16, 12, _LARGEST, 1, _LARGEST // 4096, 0, *[0] * 8)
    if word in (_GETATTR, _SETATTR):
        times = [0] * 3
        return _ATTRIBUTES.pack(3600, 0, 0, 1, SIZE, SIZE // 512, *times, *times, _MODE, 1, 0, 0, 0, 4096, 0)
    if word == _OPEN:
        return struct.pack("<QII", 1, 0, 0)
    if word in (_RELEASE, _FLUSH):  # of a file descriptor, which is no disk's flush
        return b""
    if word not in (_READING, _WRITING, _FSYNC):
        raise OSError(errno.ENOSYS, "not for disks")
    if not cache.powered:
        raise OSError(errno.EIO, "no power")
    if word == _FSYNC:
        cache.flush()
        return b""
    _handle, offset, size, *_rest = _READ.unpack_from(arguments)
    if word == _READING:
        return cache.read(offset, size)
    cache.write(offset, bytes(arguments[_READ.size : _READ.size + size]))
    return struct.pack("<II", size, 0)


def main() -> None:
    medium_path, cache_path, file = sys.argv[1:]
    _run("cp", "--sparse=always", medium_path, cache_path)
    cache = Cache(os.open(medium_path, os.O_RDWR), os.open(cache_path, os.O_RDWR))
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={_MODE:o},user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"losing-disk", file.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file)
    print("mounted", flush=True)
    serve(device, cache)


if __name__ == "__main__":
    main()
