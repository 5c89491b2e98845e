"""What a developer sees: one line at a time from several threads, those of a function with its name in front."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

_QUIET_SECONDS = 0.5
"""A build that takes no longer shows its log only when it fails."""


class Terminal:
    """Lines on standard output. Threads may share it.

    Paths of a function's running copy, in tracebacks, are shown as those of its handler folder, told in `folders`.
    """

    def __init__(self, artefacts: Path) -> None:
        self.folders: dict[str, str] = {}
        self._copy = re.compile(re.escape(str(artefacts)) + r"/[0-9a-f]{64}/[^/]+")
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """A line of the platform itself."""
        self._print(f"stoker: {text}")

    def note(self, name: str, text: str, color: str = "") -> None:
        """Lines about a function, or of it."""
        head = click.style(f"[{name}]", fg="cyan")
        if name in self.folders:
            text = self._copy.sub(lambda _: self.folders[name], text)
        for line in text.splitlines() or [""]:
            self._print(f"{head} {click.style(line, fg=color) if color else line}")

    def good(self, name: str, text: str) -> None:
        self.note(name, text, "green")

    def bad(self, name: str, text: str) -> None:
        self.note(name, text, "red")

    def _print(self, line: str) -> None:
        with self._lock:
            click.echo(line)


class Quiet:
    """A `Progress` that keeps a build's lines to itself unless they are asked for, or the build takes long."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began = time.monotonic()
        self._kept: list[str] = []

    def step(self, text: str) -> None:
        """Steps are quick, and not shown."""

    def log(self, line: str) -> None:
        self._kept.append(line)
        if time.monotonic() - self._began > _QUIET_SECONDS:
            self.show()

    def show(self) -> None:
        """Print what was kept."""
        kept: Sequence[str] = self._kept
        self._kept = []
        for line in kept:
            self._say(line)
