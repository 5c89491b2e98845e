"""Which files changed: folders are watched by the kernel, in two threads that put paths into one queue.

Some folders are watched with all that is below them (handlers, templates), of others only the entries: what lies
beside a stack file can be a virtual environment, or a disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from stoker_sdk.errors import StokerError

Filter = Callable[[Change, str], bool]

_STEP_MS = 10
"""Changes within so long of each other are one save: editors write, rename and remove at once."""
_DEBOUNCE_MS = 50
_IDLE_MS = 100
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Places:
    """What to watch, as absolute paths: `trees` whole, of `folders` only the entries."""

    trees: frozenset[Path]
    folders: frozenset[Path]


class Watching:
    """Watches places that may change. `wait` gives the paths of what has changed, as they come."""

    def __init__(self) -> None:
        self._changes: queue.SimpleQueue[set[Path]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._places: Places | None = None
        self._trouble = ""

    def use(self, places: Places, *, anew: bool = False) -> None:
        """Watch these from now on: whatever changes after this call is told. `anew` where a folder was replaced.

        Raises `StokerError` when the kernel refuses.
        """
        if places == self._places and not anew:
            return
        before, self._stop, self._places = self._stop, threading.Event(), places
        started = [
            self._start(places.trees, whole=True),
            self._start(places.folders, whole=False),
        ]
        for event in started:
            event.wait(_START_SECONDS)
        before.set()
        if self._trouble:
            raise StokerError(f"files cannot be watched: {self._trouble}; perhaps raise fs.inotify.max_user_watches")

    def wait(self, seconds: float) -> set[Path]:
        """Everything that has changed since, or an empty set when nothing does for so long."""
        changed: set[Path] = set()
        try:
            changed |= self._changes.get(timeout=seconds)
            while True:
                changed |= self._changes.get_nowait()
        except queue.Empty:
            return changed

    def close(self) -> None:
        self._stop.set()

    def _start(self, places: frozenset[Path], *, whole: bool) -> threading.Event:
        started, stop = threading.Event(), self._stop
        existing = [path for path in sorted(places) if path.is_dir()]
        if not existing:
            started.set()
            return started

        def run() -> None:
            try:
                for found in _changes(existing, _filter(places), stop, whole=whole):
                    if found and not stop.is_set():
                        self._changes.put({Path(path) for _, path in found})
                    started.set()  # the first answer, with or without changes, says that the kernel watches
            except Exception as error:  # the library raises several kinds
                self._trouble = str(error)
                started.set()

        threading.Thread(target=run, name="watch", daemon=True).start()
        return started


def _changes(
    existing: list[Path], matters: Filter, stop: threading.Event, *, whole: bool
) -> Iterator[set[tuple[Change, str]]]:
    return watch(
        *existing,
        watch_filter=matters,
        recursive=whole,
        step=_STEP_MS,
        debounce=_DEBOUNCE_MS,
        rust_timeout=_IDLE_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )


def _filter(places: frozenset[Path]) -> Filter:
    """Leaves out what editors and interpreters write beside the source: swap files, byte code, caches."""
    ordinary = DefaultFilter()

    def matters(change: Change, text: str) -> bool:
        path = Path(text)
        base = next((place for place in (path, *path.parents) if place in places), None)
        # Only names below a watched place count, for the project itself may lie in a folder called `build` or `.venv`.
        return base is None or base == path or ordinary(change, str(path.relative_to(base)))

    return matters
