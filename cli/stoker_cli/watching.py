"""Doing something again whenever a file of a stack's functions changes.

The watcher only wakes us: whether something has changed is decided by comparing what the files look like now
with what they looked like before the last run. So no change is lost, also none that is made during a build.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.connection import default_stack_file
from stoker_cli.options import Selection
from stoker_sdk.errors import BadUsage, StokerError

if TYPE_CHECKING:
    from stoker_sdk.stack import Stack

Snapshot = dict[str, tuple[int, int]]
"""Path, and when the file was changed (nanoseconds) and how long it is."""

_SETTLING = 100
"""Milliseconds without a change before one counts as finished: editors write a file in several steps."""

_LOOK = 1000
"""Milliseconds after which the files are looked at, whatever the watcher says."""

_IGNORED = frozenset({"__pycache__", ".git", "node_modules", ".pytest_cache", ".mypy_cache"})


def watch_stack(once: Callable[[], Stack], read: Callable[[], tuple[Stack, list[Path]]], selection: Selection) -> None:
    """Run `once` now and after every change, until Ctrl-C. A failure is printed, and the next change tries again.

    `read` gives the stack, and the stack files that were named; what is watched follows what it says.
    """
    while True:
        paths = _paths(read, selection)
        if not paths:
            raise BadUsage("there is nothing to watch: no stack file here, and no function with a handler")
        before = snapshot(paths)
        _tried(once)
        click.echo(f"watching {', '.join(map(str, paths))}: Ctrl-C ends it", err=True)
        click.echo(f"changed: {', '.join(_changed(paths, before))}", err=True)


def snapshot(paths: list[Path]) -> Snapshot:
    """What the files are like: those named, and those in the folders named."""
    return dict(seen for path in paths for seen in _seen(path))


def _seen(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    if path.name in _IGNORED or path.name.endswith((".pyc", ".swp", "~")):
        return
    try:
        if path.is_dir() and not path.is_symlink():
            for name in os.listdir(path):
                yield from _seen(path / name)
        else:
            status = path.stat()
            yield str(path), (status.st_mtime_ns, status.st_size)
    except OSError:
        return  # it has just gone, which is a change too


def _tried(once: Callable[[], Stack]) -> None:
    try:
        once()
    except StokerError as error:
        click.echo(f"stoker: {error}", err=True)


def _changed(paths: list[Path], before: Snapshot) -> list[str]:
    """Wait, and give the first few names of what is not as it was before."""
    from watchfiles import watch

    # The folder of a file is watched, since editors replace the file.
    folders = {path if path.is_dir() else path.resolve().parent for path in paths}
    watcher = watch(
        *folders, watch_filter=None, step=_SETTLING, rust_timeout=_LOOK, yield_on_timeout=True, raise_interrupt=True
    )
    for _ in watcher:
        now = snapshot(paths)
        if now != before:
            return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))[:3]
    raise KeyboardInterrupt


def _paths(read: Callable[[], tuple[Stack, list[Path]]], selection: Selection) -> list[Path]:
    from stoker_builder.request import copied_paths
    from stoker_sdk.stack import select

    default = default_stack_file(Path())
    files = [default] if default else []
    try:
        stack, named = read()
        files = named or files
        paths: list[Path] = []
        for function in select(stack.functions, selection.filter, selection.regex):
            if function.is_built_here:
                paths += [stack.handler_folder(function), *copied_paths(stack, function).values()]
        return sorted({path for path in [*files, *paths] if path.exists()})
    except StokerError:
        # The stack is broken just now: its mending is what to wait for.
        return [path for path in files if path.exists()] or [Path()]
