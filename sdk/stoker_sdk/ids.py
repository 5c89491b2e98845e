"""User ids for functions, artefacts and environments, one for each purpose, remembered in a file.

An id is given once and never to anybody else: files on disk carry it, and a reused id would hand one
function's files to another. Several processes allocate (control, builders), so the file is changed under a
lock only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.files import write_whole

FIRST_ID = 1_900_000_000
"""Within the stretch that distributions, systemd and containers leave alone (from 1,879,048,192 on)."""

ID_COUNT = 100_000


def first_id_of(folder: Path) -> int:
    """Where the ids of a data folder begin: each folder has a stretch of `ID_COUNT` for itself, chosen by its path.

    Two platforms of one machine must not share ids: a build ends what its user still runs, and a user could read
    the other platform's files. Of 2,400 stretches two folders have the same one by rare chance: then name one.
    """
    stretches = (2**31 - FIRST_ID) // ID_COUNT
    number = int.from_bytes(hashlib.sha256(os.fsencode(folder.resolve())).digest()[:8])
    return FIRST_ID + number % stretches * ID_COUNT


class UserIds:
    """The allocator over one file, of the ids `first` to `first + count - 1`; safe between processes."""

    def __init__(self, path: Path, first: int = FIRST_ID, count: int = ID_COUNT) -> None:
        if first < 1 or count < 1 or first + count > 2**31:
            raise BadInput(f"user ids {first} + {count} are not a range: begin at 1 or more, and end below {2**31}")
        self.path = path
        self.first = first
        self.count = count
        self._given: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"UserIds({self.path}, {self.first}..{self.first + self.count - 1})"

    def id_for(self, purpose: str) -> int:
        """The id of `purpose` (`function:NS/NAME`, `artefact:HEX`, `tests`): the one it had, or a new one.

        Raises `StokerError` when the range is used up or the file cannot be read.
        """
        known = self._given.get(purpose)
        if known is None:
            known = self._given[purpose] = self._allocate(purpose)
        return known

    def _allocate(self, purpose: str) -> int:
        with _locked(self.path.with_name(self.path.name + ".lock")):
            given = self._read()
            if purpose in given:
                return given[purpose]
            new = self._next_free(given)
            write_whole(self.path, msgspec.json.format(msgspec.json.encode(given | {purpose: new}), indent=1))
            return new

    def _read(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise StokerError(
                f"{self.path}: cannot be read as the table of user ids ({error}): restore it from a backup; "
                "without it functions could get each other's files"
            ) from error

    def _next_free(self, given: dict[str, int]) -> int:
        within = [number for number in given.values() if self.first <= number < self.first + self.count]
        new = max(within, default=self.first - 1) + 1
        if new >= self.first + self.count:
            raise StokerError(
                f"{self.path}: all {self.count} user ids from {self.first} on are given: "
                "start Stoker with a larger range"
            )
        return new


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
