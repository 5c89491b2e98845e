"""What must survive a restart of one function: one JSON file each, replaced atomically.

A file that cannot be read is set aside and reported; the rest starts.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stoker_gateway.revisions import Kept
from stoker_sdk.errors import StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

log = logging.getLogger("stoker.records")


class Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`spec` is what the user asked for last, as revision `revision`; `serving` is the last revision that was ready.

    While a rollout runs, and after it failed, `serving_spec` is what replicas are made of. `failure` says why the
    revision failed, `failure_code` likewise for programs; the last lines that it printed are in `output`. The last
    revision of `history` is this one.
    """

    spec: FunctionSpec
    revision: int
    created_at: str
    replicas: int
    serving: int = 0
    serving_spec: FunctionSpec | None = None
    failure: str = ""
    failure_code: str = ""
    output: list[str] = []
    history: list[Kept] = []

    @property
    def key(self) -> FunctionKey:
        return self.spec.key

    @property
    def revisions(self) -> list[Kept]:
        """Its history: never empty, though the file may be of a release that kept none."""
        return self.history or [Kept(self.revision, self.created_at, self.spec)]


class Records:
    """The folder `functions/NAMESPACE/NAME.json`."""

    def __init__(self, folder: Path, set_aside: Path) -> None:
        self._folder = folder
        self._set_aside = set_aside

    def load(self) -> Iterator[Record]:
        for path in sorted(self._folder.glob("*/*.json")):
            record = self._read(path)
            if record is not None:
                yield record

    def _read(self, path: Path) -> Record | None:
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
            record.spec.check()
            if self._path(record.key) != path:
                raise StokerError(f"it describes {record.key}, whose file has another name")
        except (OSError, msgspec.DecodeError, StokerError) as error:
            self._put_aside(path, error)
            return None
        return record

    def _put_aside(self, path: Path, error: Exception) -> None:
        self._set_aside.mkdir(parents=True, exist_ok=True)
        goal = self._set_aside / f"{path.parent.name}.{path.stem}.{int(time.time())}.json"
        log.error("%s cannot be read and is set aside as %s: %s", path, goal, error)
        try:
            shutil.move(path, goal)
        except OSError as failed:
            log.error("%s could not be moved either: %s", path, failed)

    def save(self, record: Record) -> None:
        path = self._path(record.key)
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(record), indent=1))

    def delete(self, key: FunctionKey) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: FunctionKey) -> Path:
        return self._folder / key.namespace / f"{key.name}.json"
