"""Which images of the Docker Engine this platform has fetched, and when each was needed last.

The Engine cannot say who wanted an image, and what others have fetched or built is theirs. So what we fetch is noted in
a file before it is there, and only that is ever removed.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from stoker_sdk.files import write_whole


class PulledImages:
    """The file at `path`: Unix seconds by the name of an image, which has its digest in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._needed = msgspec.json.decode(path.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.DecodeError):
            self._needed = {}

    def pulls(self, image: str) -> None:
        """It is about to be fetched. A tag may be anybody's, and is not noted."""
        if "@" in image:
            self._write(self._needed | {image: time.time()})

    def is_needed(self, image: str) -> None:
        """It is about to be used. What others have fetched stays theirs."""
        if image in self._needed:
            self._write(self._needed | {image: time.time()})

    def unused(self, used: Collection[str], keep: float) -> list[str]:
        """Those that nobody has needed for `keep` seconds; what is used is needed now."""
        now = time.time()
        needed = {image: now if image in used else since for image, since in self._needed.items()}
        if self._needed:
            self._write(needed)
        return [image for image, since in needed.items() if since < now - keep]

    def is_gone(self, image: str) -> None:
        self._write({name: since for name, since in self._needed.items() if name != image})

    def _write(self, needed: dict[str, float]) -> None:
        self._needed = needed
        write_whole(self._path, msgspec.json.encode(needed))
