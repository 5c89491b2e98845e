"""What one build may use of the machine, as the platform's operator says it."""

from __future__ import annotations

from dataclasses import dataclass

_UNITS = (("GiB", 30), ("MiB", 20), ("KiB", 10))


@dataclass(frozen=True)
class Bounds:
    """Of everything that a build starts, together: bytes and files that it writes (what it adds to the shared caches
    included), bytes of memory, processes and threads. `cache` is what the shared caches may keep after it.
    """

    disk: int = 16 << 30
    files: int = 500_000
    memory: int = 4 << 30
    processes: int = 512
    cache: int = 20 << 30


def size_text(size: int) -> str:
    """`2 GiB`, `1.5 MiB`, `100 bytes`."""
    for unit, shift in _UNITS:
        if size >= 1 << shift:
            return f"{round(size / (1 << shift), 1):g} {unit}"
    return f"{size} bytes"
