"""What a person sees while functions are built and deployed, on standard error.

On a terminal one line moves along with the steps; elsewhere every line is printed as it comes, for the log.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from stoker_sdk.rollout import Progress as Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_KEPT = 200
"""Build lines that are shown when a function fails on a terminal, where they have not been printed as they
came.
"""


@contextmanager
def progress_of(name: str, steps: int, quiet: bool = False, alone: bool = True) -> Iterator[Progress]:
    """The display for one function that goes through so many steps. With `quiet`, lines are shown when it fails;
    several displays at a time (not `alone`) cannot move.
    """
    if quiet:
        with _kept(name) as progress:
            yield progress
    elif sys.stderr.isatty() and alone:
        with _bar(name, steps) as progress:
            yield progress
    else:
        yield _Lines(name)


class _Lines:
    def __init__(self, name: str) -> None:
        self._name = name

    def step(self, text: str) -> None:
        click.echo(f"[{self._name}] {text}", err=True)

    def log(self, line: str) -> None:
        click.echo(f"[{self._name}]   {line}", err=True)


class _Quiet:
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT)

    def step(self, text: str) -> None:
        """Not shown."""

    def log(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def _kept(name: str) -> Iterator[Progress]:
    quiet = _Quiet()
    try:
        yield quiet
    except BaseException:
        for line in quiet.lines:
            click.echo(f"[{name}]   {line}", err=True)
        raise


class _Moving:
    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._started = False
        self._text = ""
        self.lines: deque[str] = deque(maxlen=_KEPT)

    def step(self, text: str) -> None:
        self._text = text
        self._bar.update(self._task, step=text, advance=1 if self._started else 0)
        self._started = True

    def log(self, line: str) -> None:
        self.lines.append(line)
        self._bar.update(self._task, step=f"{self._text}: {line.strip()[:100]}")


@contextmanager
def _bar(name: str, steps: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(finished_text="[green]ok[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(escape(name), total=steps, step="")
        moving = _Moving(bar, task)
        try:
            yield moving
        except BaseException:
            bar.update(task, step="failed")
            bar.stop()
            for line in moving.lines:
                click.echo(f"  {line}", err=True)
            raise
        bar.update(task, completed=steps, step="")
