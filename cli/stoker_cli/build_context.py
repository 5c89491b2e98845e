"""The folder that Docker builds an image from: `./build/NAME` beside the stack (contract section 9.5)."""

from __future__ import annotations

import shutil
from pathlib import Path

from stoker_builder.request import DOCKERFILE, copied_paths
from stoker_builder.templates import Template
from stoker_cli.runtime_wheel import write_runtime_wheel
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.paths import check_tree
from stoker_sdk.stack import Stack, StackFunction

BUILD_FOLDER = "build"
_WANTS_RUNTIME = "ARG STOKER_PACKAGE"
"""In the Dockerfiles that install our watchdog."""

_NOT_COPIED = (BUILD_FOLDER, "template", ".git")


def write_context(stack: Stack, function: StackFunction, template: Template | None) -> Path:
    """Write the context anew and return its folder. Raises `BadInput` for links that leave, and odd files.

    A Dockerfile that installs our watchdog finds it as a wheel in the context, of the release that runs here.
    """
    part = stack.part_of(function)
    handler = stack.handler_folder(function)
    check_tree(handler, f"{part.file}: functions.{function.name}.handler")
    if template is None and function.lang != DOCKERFILE:
        raise NotFound(f"template {function.lang!r} is not here: pull it with `stoker template pull`")
    extras = copied_paths(stack, function)
    folder = _emptied(part.folder / BUILD_FOLDER, function.name)
    try:
        if template is not None:
            check_tree(template.path, f"template {template.name!r}")
            _copy(template.path, folder)
        target = folder / template.handler_folder if template else folder
        _copy(handler, target, _NOT_COPIED)
        for name, path in extras.items():
            _copy(path, target / name)
        if _wants_runtime(folder):
            write_runtime_wheel(folder)
    except (shutil.Error, OSError) as error:
        raise StokerError(f"the build context {folder} cannot be written: {_reason(error)}") from None
    return folder


def _wants_runtime(context: Path) -> bool:
    dockerfile = context / "Dockerfile"
    return dockerfile.is_file() and _WANTS_RUNTIME in dockerfile.read_text(errors="replace")


def _emptied(parent: Path, name: str) -> Path:
    folder = parent / name
    for path in (parent, folder):
        if path.is_symlink():
            raise BadInput(f"{path} is a symbolic link: remove it, a build context is written there")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _copy(source: Path, target: Path, skipped: tuple[str, ...] = ()) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        shutil.copy(source, target)
        return

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name == "__pycache__" or (name in skipped and Path(folder) == source)}

    shutil.copytree(source, target, ignore=ignored, copy_function=shutil.copy, dirs_exist_ok=True)


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])[:200]
    return str(error.strerror or error)
