"""The stack as it stands on disk: its functions, and which files decide about which of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stoker_cli.development.secrets import FOLDER
from stoker_cli.development.watching import Places
from stoker_sdk.errors import NotFound, StokerError
from stoker_sdk.stack import Stack, StackFunction, load_stack, parse_stack


@dataclass(frozen=True)
class Project:
    """A stack file that could be read. `functions` are those that were asked for; `files` decide about the stack."""

    file: Path
    stack: Stack
    functions: Mapping[str, StackFunction]
    files: frozenset[Path]

    @property
    def folder(self) -> Path:
        return self.file.parent.resolve()

    def trees(self, function: StackFunction) -> tuple[Path, ...]:
        """The folders (and files: `copy`) from which a function is built, whether or not they exist."""
        handler = (self.folder / function.handler).resolve()
        copied = ((self.folder / name).resolve() for name in (*self.stack.copy, *function.copy))
        return handler, self.folder / "template" / function.lang, *copied

    def secret_files(self, function: StackFunction) -> set[Path]:
        return {self.folder / FOLDER / name for name in function.secrets}

    def places(self) -> Places:
        """What to watch: the functions' folders, and where one of them, or a file of the stack, can appear or go."""
        trees = {tree for function in self.functions.values() for tree in self.trees(function)}
        parents = {path.parent for path in (*trees, *self.files)} | {self.folder, self.folder / FOLDER}
        return Places(frozenset(filter(Path.is_dir, trees)), frozenset(_existing(path) for path in parents))

    def concerns_stack(self, changed: set[Path]) -> bool:
        return _reached(self.files, changed)

    def concerned(self, changed: set[Path]) -> list[StackFunction]:
        """The functions that must be built or deployed again when these paths have changed."""
        return [function for function in self.functions.values() if self._is_concerned(function, changed)]

    def _is_concerned(self, function: StackFunction, changed: set[Path]) -> bool:
        trees = self.trees(function)
        inside = any(path.is_relative_to(tree) for path in changed for tree in trees)
        return inside or _reached({*trees, *self.secret_files(function)}, changed)

    def was_replaced(self, changed: set[Path]) -> bool:
        """Whether watching must begin anew, because the kernel watches folders and not their names."""
        folders = {tree for function in self.functions.values() for tree in self.trees(function)}
        return _reached({*folders, *(file.parent for file in self.files), self.folder / FOLDER}, changed)


def _reached(places: Iterable[Path], changed: set[Path]) -> bool:
    """Whether one of the places, or a folder above it, came, went, or is another now."""
    return any(place.is_relative_to(path) for path in changed for place in places)


def load_project(file: Path, names: tuple[str, ...], environment: Mapping[str, str]) -> Project:
    """Read the stack file. Raises `StokerError` for what cannot be used, `NotFound` for a name that is not in it."""
    stack = load_stack(file, environment)
    known = {function.name: function for function in stack.functions}
    for name in names:
        if name not in known:
            raise NotFound(f"{file} has no function {name!r}; it has: {', '.join(known) or 'none'}")
    chosen = {name: function for name, function in known.items() if name in names or not names}
    return Project(file, stack, chosen, stack_files(file, environment))


def stack_files(file: Path, environment: Mapping[str, str]) -> frozenset[Path]:
    """The stack file and the environment files that it names, whether or not they exist."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return ""

    try:
        parse_stack(file.read_text(encoding="utf-8"), environment, file=str(file), folder=file.parent, read=note)
    except (StokerError, OSError, UnicodeDecodeError):
        pass  # whoever loads it says what is wrong; the names so far are worth watching
    return frozenset({file.parent.resolve() / file.name, *((file.parent.resolve() / name).resolve() for name in names)})


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
