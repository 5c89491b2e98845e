"""A small file system of its own for a folder, and the means to fill it. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK = 256 * 1024 * 1024
FILLER = "filler"


@contextmanager
def small_disk(folder: Path, size: int = DISK) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, left: int) -> None:
    """Leave so many bytes of the disk; 0 is not a byte."""
    status = os.statvfs(folder)
    with (folder / FILLER).open("ab") as filler:
        end = filler.tell() + status.f_bavail * status.f_frsize - left
        os.posix_fallocate(filler.fileno(), 0, end)
