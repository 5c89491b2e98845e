"""Reads what replicas wrote to their log files; the format is in `watchdog/…/logs.py`.

The folder belongs to the function's user, so nothing in it is trusted: only regular files are read, links are not
followed, and a line's length is bounded.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from stoker_gateway.providers.base import LogLine, LogQuery
from stoker_sdk.names import FunctionKey

KEEP_FILES = 20
_RECORD = b"\x1e"
_MAX_LINE = 128 * 1024


class LogFiles:
    """The log folder of one function."""

    def __init__(self, folder: Path, key: FunctionKey) -> None:
        self._folder = folder
        self._key = key

    def read(self, query: LogQuery) -> Iterator[LogLine]:
        """The lines that are there now, all instances merged by time."""
        since = query.since.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if query.since else ""
        streams = [self._lines(path, since) for path in self._paths(query.instance)]
        merged = heapq.merge(*streams, key=_time)
        return iter(deque(merged, maxlen=query.tail)) if query.tail >= 0 else merged

    def _paths(self, instance: str) -> list[Path]:
        try:
            names = sorted(os.listdir(self._folder), key=_oldest_first)
        except FileNotFoundError:
            return []
        return [self._folder / name for name in names if not instance or _instance(name) == instance]

    def _lines(self, path: Path, since: str) -> Iterator[LogLine]:
        file = open_safely(path)
        if file is None:
            return
        with file:
            parser = LineParser(self._key, _instance(path.name), _modified(file))
            while raw := file.readline(_MAX_LINE):
                line = parser.parse(raw)
                if line.timestamp >= since:
                    yield line

    def prune(self, living: set[str]) -> None:
        """Keep the newest files of replicas that have ended, so that their logs can still be read for a while."""
        ended = [path for path in self._paths("") if _instance(path.name) not in living]
        ended.sort(key=lambda path: path.lstat().st_mtime)
        for path in ended[:-KEEP_FILES] if len(ended) > KEEP_FILES else []:
            path.unlink(missing_ok=True)

    def last_lines(self, instance: str, number: int) -> list[str]:
        """The last lines that one replica printed, without their newline."""
        lines = deque(self.read(LogQuery(instance=instance)), maxlen=number)
        return [line.text.rstrip("\n")[:500] for line in lines]


class Follower:
    """What comes new in a log folder from now on; ask it again and again."""

    def __init__(self, folder: Path, key: FunctionKey, instance: str) -> None:
        self._folder = folder
        self._key = key
        self._instance = instance
        self._read_until: dict[tuple[int, int], int] = {}
        for _ in self.new_lines():
            pass

    def new_lines(self) -> Iterator[LogLine]:
        for path in LogFiles(self._folder, self._key)._paths(self._instance):
            file = open_safely(path)
            if file is not None:
                with file:
                    yield from self._rest_of(file, _instance(path.name))

    def _rest_of(self, file: BinaryIO, instance: str) -> Iterator[LogLine]:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        position = self._read_until.get(identity, 0)
        if status.st_size <= position:
            return
        file.seek(position)
        parser = LineParser(self._key, instance, _modified(file))
        while raw := file.readline(_MAX_LINE):
            if not raw.endswith(b"\n") and len(raw) < _MAX_LINE:
                break  # its end is still to be written
            position += len(raw)
            yield parser.parse(raw)
        self._read_until[identity] = position


class LineParser:
    """Lines of one file. A line from below Python has no time: it gets that of the record before it."""

    def __init__(self, key: FunctionKey, instance: str, time: str) -> None:
        self._key = key
        self._instance = instance
        self._time = time

    def parse(self, raw: bytes) -> LogLine:
        text, call = raw, b""
        if raw.startswith(_RECORD):
            stamp, _, rest = raw[1:].partition(b" ")
            call, _, text = rest.partition(b" ")
            self._time = stamp.decode("ascii", "replace")
        return LogLine(
            name=self._key.name,
            namespace=self._key.namespace,
            instance=self._instance,
            timestamp=self._time,
            text=text.decode("utf-8", "replace"),
            call="" if call == b"-" else call.decode("ascii", "replace"),
        )


def open_safely(path: Path) -> BinaryIO | None:
    """The file, if it is one and not a link to something else; None otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _modified(file: BinaryIO) -> str:
    moment = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _instance(name: str) -> str:
    return name.removesuffix(".1").removesuffix(".log")


def _oldest_first(name: str) -> tuple[str, bool]:
    return _instance(name), not name.endswith(".1")


def _time(line: LogLine) -> str:
    return line.timestamp
