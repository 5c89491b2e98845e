"""Removes artefacts and environments that nothing has used for a while, so that builds do not fill the disk for ever;
sooner where the disk is nearly full.

Used is what a stored function names in any revision that is kept of it. What was built but not deployed yet is young:
a build and a deploy set the folder's time anew. A folder is renamed before it is emptied, in the same turn of the loop
as the check, so that no deploy can take one that is half gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from stoker_gateway.providers.local.artefacts import read_manifest
from stoker_sdk.data_dir import DataDir

log = logging.getLogger("stoker.collector")

KEEP_SECONDS = 24 * 3600.0
"""How long an unused artefact or environment stays: what was built and not deployed yet."""
KEEP_SECONDS_FULL = 600.0
"""The same when the disk is nearly full: longer than it takes to deploy what was built."""
NEARLY_FULL = 2 << 30
"""Bytes of the disk that are left then, or a tenth of it, whichever is less."""
_EVERY_SECONDS = 3600.0
_LOOK_SECONDS = 60.0
_TRASH = ".trash-"


class Collector:
    """`used()` gives the digests of all artefacts that the kept revisions of stored functions name; `images(keep)`
    removes what of containers' images nothing has used for so long.
    """

    def __init__(
        self,
        data: DataDir,
        used: Callable[[], set[str]],
        images: Callable[[float], Awaitable[None]] | None = None,
        keep: float = KEEP_SECONDS,
    ) -> None:
        self._data = data
        self._used = used
        self._images = images
        self._keep = keep

    async def run(self) -> None:
        """Collect now and every hour, every minute where the disk is nearly full; until cancelled."""
        next_time = 0.0
        while True:
            try:
                if time.monotonic() >= next_time or _is_nearly_full(self._data.path):
                    next_time = time.monotonic() + _EVERY_SECONDS
                    await self.collect()
            except Exception:  # a broken artefact, say: nothing is worth ending for
                log.exception("unused artefacts could not be removed")
            await asyncio.sleep(_LOOK_SECONDS)

    async def collect(self) -> None:
        """Remove what is unused and old enough."""
        artefacts = self._set_aside(self._data.artefacts, self._used())
        environments = self._set_aside(self._data.environments, self._needed_environments())
        if artefacts or environments:
            log.info("removing %d unused artefacts, %d unused environments", artefacts, environments)
        for folder in (self._data.artefacts, self._data.environments):
            await asyncio.to_thread(_empty_trash, folder)
        if self._images is not None:
            await self._images(self._seconds_kept())

    def _seconds_kept(self) -> float:
        return min(self._keep, KEEP_SECONDS_FULL) if _is_nearly_full(self._data.path) else self._keep

    def _set_aside(self, folder: Path, used: set[str]) -> int:
        """Rename what goes; how many went."""
        oldest = time.time() - self._seconds_kept()
        gone = 0
        for path in _folders(folder):
            if path.name not in used and not path.name.startswith(".") and path.stat().st_mtime < oldest:
                path.rename(folder / f"{_TRASH}{path.name}")
                gone += 1
        return gone

    def _needed_environments(self) -> set[str]:
        """Of every artefact that is still there, used or young."""
        return {read_manifest(path).environment for path in _folders(self._data.artefacts) if path.name[0] != "."}


def _is_nearly_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < min(NEARLY_FULL, status.f_blocks * status.f_frsize // 10)


def mark_used(path: Path) -> None:
    """Somebody has just asked for it, so it is young again."""
    try:
        os.utime(path)
    except OSError:
        pass  # the folder of another user: it is only collected sooner


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _empty_trash(parent: Path) -> None:
    for path in _folders(parent):
        if path.name.startswith(_TRASH):
            shutil.rmtree(path, ignore_errors=True)
