"""The folder that Docker builds an image from: `./build/NAME` beside the stack (contract section 9.5)."""

from __future__ import annotations

import shutil
from pathlib import Path

from stoker_builder.templates import Template, find_template
from stoker_cli.runtime_wheel import write_runtime_wheel
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.paths import check_tree, inside
from stoker_sdk.stack import Stack, StackFunction

DOCKERFILE = "dockerfile"
"""The language whose handler folder is the whole context."""

BUILD_FOLDER = "build"
_WANTS_RUNTIME = "ARG STOKER_PACKAGE"
"""In the Dockerfiles that install our watchdog."""

_NOT_COPIED = (BUILD_FOLDER, "template", ".git")


def template_of(stack: Stack, function: StackFunction) -> Template | None:
    """The function's template: an own one beside the stack, or a built-in one; None when there is none here."""
    if not function.lang or function.lang == DOCKERFILE:
        return None
    try:
        return find_template(function.lang, stack.part_of(function).folder / "template")
    except NotFound:
        return None


def needs_docker(function: StackFunction, template: Template | None) -> bool:
    """Whether the gateway cannot build it: a Dockerfile of its own, or a template that only makes images."""
    if function.lang == DOCKERFILE:
        return True
    return template is not None and not template.mode and built_in_for(template) is None


def built_in_for(template: Template) -> Template | None:
    """The built-in template that the gateway uses in place of one that was pulled and can only make images.

    Whoever comes from faas-cli has such copies of `python3-http` and others, and no use for Docker here. A template
    that the project wrote itself (without `meta.json`) is never replaced.
    """
    if template.mode or not (template.path / "meta.json").is_file():
        return None
    try:
        found = find_template(template.name.partition("@")[0])
    except NotFound:
        return None
    return found if found.mode else None


def copied_paths(stack: Stack, function: StackFunction) -> dict[str, Path]:
    """What `configuration.copy` adds to the handler folder: name in it, and path. Raises `BadInput`."""
    part = stack.part_of(function)
    found: dict[str, Path] = {}
    for index, name in enumerate(part.copy):
        what = f"{part.file}: configuration.copy[{index}]"
        path = inside(part.folder, name, what)
        relative = path.relative_to(part.folder.resolve())
        if relative == Path():
            raise BadInput(f"{what}: {name!r} is the whole project: name the folders and files that are wanted")
        if not path.exists():
            raise BadInput(f"{what}: there is no {name!r} beside the stack file")
        if path.is_dir():
            check_tree(path, what)
        found[str(relative)] = path
    return found


def build_arguments(
    function: StackFunction, template: Template | None, options: tuple[str, ...], arguments: dict[str, str]
) -> dict[str, str]:
    """The stack's arguments, the flags' over them, and the packages of the build options (section 9.5).

    Raises `BadInput` for an option that the template does not have. A template that knows no options at all takes
    them for what others would install.
    """
    merged = {**function.build_args, **arguments}
    known = {option.name: option.packages for option in template.build_options} if template else {}
    packages = set(merged.get("ADDITIONAL_PACKAGE", "").split())
    for name in (*function.build_options, *options):
        if known and name not in known:
            names = ", ".join(known)
            raise BadInput(f"build option {name!r} is unknown to the template {function.lang!r}, which has: {names}")
        packages.update(known.get(name, ()))
    return {**merged, "ADDITIONAL_PACKAGE": " ".join(sorted(packages))} if packages else merged


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
