"""What is sent to a gateway to have a function of a stack built: which folders, which template, which arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stoker_builder.templates import Template, find_template
from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.paths import check_tree, inside
from stoker_sdk.stack import Stack, StackFunction

DOCKERFILE = "dockerfile"
"""The language whose handler folder is the whole context."""


@dataclass(frozen=True)
class BuildRequest:
    """One function's build: the handler folder, what is copied into it, and an own template's folder, if one is sent.

    `replaced` is the built-in template that stands in for a pulled copy, or None.
    """

    settings: BuildSettings
    handler: Path
    template: Path | None
    copied: dict[str, Path]
    replaced: Template | None

    @contextmanager
    def packed(self) -> Iterator[IO[bytes]]:
        """As the tar that `ControlClient.build` takes. Raises `BadInput` for links, odd files, and too much."""
        with pack(self.settings, self.handler, self.template, self.copied) as archive:
            yield archive


def build_request(
    stack: Stack, function: StackFunction, arguments: dict[str, str], options: tuple[str, ...] = ()
) -> BuildRequest:
    """`arguments` and `options` are added to the function's own. Raises `BadInput` for what cannot be built."""
    part, folder = stack.part_of(function), _handler_folder(stack, function)
    template = template_of(stack, function)
    given = build_arguments(function, template, options, arguments)
    built_in = built_in_for(template) if template else None
    settings = BuildSettings(function.name, built_in.name if built_in else function.lang, given)
    own = part.folder / "template" / function.lang
    sent = own if own.is_dir() and built_in is None else None
    return BuildRequest(settings, folder, sent, copied_paths(stack, function), built_in)


def image_request(
    stack: Stack, function: StackFunction, arguments: dict[str, str], options: tuple[str, ...] = ()
) -> BuildRequest:
    """The same for an image: no template that is here gives way to a built-in one, and `lang: dockerfile` is built."""
    part, folder = stack.part_of(function), _handler_folder(stack, function)
    template = template_of(stack, function)
    if template is None and function.lang != DOCKERFILE:
        raise NotFound(f"template {function.lang!r} is not here: pull it with `stoker template pull`")
    given = build_arguments(function, template, options, arguments)
    settings = BuildSettings(function.name, function.lang, given)
    own = template.path if template and template.path.is_relative_to(part.folder / "template") else None
    return BuildRequest(settings, folder, own, copied_paths(stack, function), None)


def _handler_folder(stack: Stack, function: StackFunction) -> Path:
    folder = stack.handler_folder(function)
    check_tree(folder, f"{stack.part_of(function).file}: functions.{function.name}.handler")
    return folder


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
    """What `configuration.copy` and the function's own `copy` add to the handler folder: name in it, and path. Raises
    `BadInput`.
    """
    part = stack.part_of(function)
    asked = [(f"configuration.copy[{index}]", name) for index, name in enumerate(part.copy)]
    asked += [(f"functions.{function.name}.copy[{index}]", name) for index, name in enumerate(function.copy)]
    found: dict[str, Path] = {}
    for key, name in asked:
        what = f"{part.file}: {key}"
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
