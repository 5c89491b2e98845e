"""The folder that BuildKit builds an image from: the template, the handler in it, and our runtime (contract section
9.5).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from stoker_builder.images.builder import Order
from stoker_builder.images.runtime_wheel import write_runtime_wheel
from stoker_builder.request import DOCKERFILE, BuildRequest
from stoker_builder.templates import Template, find_template, load_template
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.paths import check_tree

BUILD_FOLDER = "build"
"""Beside the stack, where contexts are written for a person to look at."""
_WANTS_RUNTIME = "ARG STOKER_PACKAGE"
"""In the Dockerfiles that install our watchdog."""

_TEST = re.compile(r"(test_.*|.*[_.]test)\.[a-z]+|conftest\.py")
_NOT_COPIED = (BUILD_FOLDER, "template", ".git")


def write_context(request: BuildRequest, folder: Path) -> Path:
    """Write the context anew and return its folder. Raises `BadInput` for links that leave, and odd files; `NotFound`
    for the template.

    A Dockerfile that installs our watchdog finds it as a wheel in the context, of the release that runs here.
    """
    check_tree(request.handler, f"{request.settings.name}: its handler")
    template = _template(request)
    if template is not None:
        check_tree(template.path, f"template {template.name!r}")
    try:
        _empty(folder)
        if template is not None:
            _copy(template.path, folder)
            _remove_tests(folder / template.handler_folder)
        target = folder / template.handler_folder if template else folder
        _copy(request.handler, target, _NOT_COPIED)
        for name, path in request.copied.items():
            _copy(path, target / name)
        if _WANTS_RUNTIME in dockerfile_of(folder):
            write_runtime_wheel(folder)
    except (shutil.Error, OSError) as error:
        raise StokerError(f"the build context {folder} cannot be written: {_reason(error)}") from None
    return folder


def prepare_context(order: Order) -> tuple[Path, str]:
    """The order's context, written anew, and the Dockerfile that is built. Raises as `write_context`, and what the
    order's `dockerfile` raises.
    """
    context = write_context(order.request, order.context)
    wanted = order.dockerfile(dockerfile_of(context))
    if wanted:
        path = context / "Dockerfile"
        path.unlink(missing_ok=True)  # which may be read-only
        path.write_bytes(wanted.encode(errors="surrogateescape"))
    return context, wanted


def dockerfile_of(context: Path) -> str:
    """The Dockerfile's text; empty where there is none, which BuildKit says better. No byte is lost: line ends
    stay, and what is not UTF-8 are surrogates.
    """
    path = context / "Dockerfile"
    return path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""


def _template(request: BuildRequest) -> Template | None:
    if request.settings.lang == DOCKERFILE:
        return None
    if request.template is not None:
        return load_template(request.template, request.settings.lang)
    return find_template(request.settings.lang)


def _empty(folder: Path) -> None:
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise BadInput(f"{path} is a symbolic link: remove it, a build context is written there")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _remove_tests(starter: Path) -> None:
    """A template's starter is there for what a handler leaves out; its tests are of the starter."""
    for path in starter.rglob("*"):
        if _TEST.fullmatch(path.name) and path.is_file():
            path.unlink()


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
