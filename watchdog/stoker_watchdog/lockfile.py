"""The lock file, by which probes that run a command see whether the watchdog serves (contract section 8.4)."""

from __future__ import annotations

import os
import tempfile


def lock_path() -> str:
    """`.lock` in the folder for temporary files, `/tmp/.lock` in a container."""
    return os.path.join(tempfile.gettempdir(), ".lock")


def write_lock(path: str) -> None:
    """Write it, through no link. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(path, flags, 0o644))


def remove_lock(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
