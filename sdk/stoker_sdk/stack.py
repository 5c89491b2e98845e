"""The stack file: which functions there are, what they are built from, and how they run.

Reading it is a pure function of text and environment (contract section 9), so the CLI and the builder see the
same stack, and every refusal names file, line, column and key. Only `load_stack` touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker_sdk.document import MAX_BYTES, Value, compose
from stoker_sdk.errors import BadInput, BadUsage, NotFound
from stoker_sdk.fetch import fetch, is_url, without_password
from stoker_sdk.gateway_address import DEFAULT_GATEWAY, normalize_gateway
from stoker_sdk.paths import inside
from stoker_sdk.settings import SETTINGS as SETTINGS
from stoker_sdk.stack_function import ReadFile, read_function
from stoker_sdk.stack_function import StackFunction as StackFunction
from stoker_sdk.substitution import substitute

PROVIDERS = ("openfaas", "faas")
_ROOT_KEYS = ("version", "provider", "functions", "configuration")


@dataclass(frozen=True)
class TemplateSource:
    """One entry of `configuration.templates`: where an own template comes from."""

    name: str
    source: str


@dataclass(frozen=True)
class Stack:
    """A whole stack file. `folder` is what paths are relative to; `warnings` are lines for the user.

    Several files that are used together are one stack too, with the files as its `parts`.
    """

    file: str
    folder: Path
    gateway: str = ""
    functions: tuple[StackFunction, ...] = ()
    templates: tuple[TemplateSource, ...] = ()
    copy: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    parts: tuple[Stack, ...] = ()

    def part_of(self, function: StackFunction) -> Stack:
        """The one file in which the function stands."""
        names = {each.name: part for part in self.parts for each in part.functions}
        return names.get(function.name, self)

    def handler_folder(self, function: StackFunction) -> Path:
        """Where the function's source is. Raises `BadInput` when that leaves the stack's folder or is no
        folder.
        """
        part = self.part_of(function)
        what = f"{part.file}: functions.{function.name}.handler"
        folder = inside(part.folder, function.handler, what)
        if not folder.is_dir():
            raise BadInput(f"{what}: there is no folder {function.handler!r} beside the stack file")
        return folder


def load_stacks(names: Sequence[str], environment: Mapping[str, str], *, substituted: bool = True) -> Stack:
    """The stack that one or several paths and http(s) addresses stand for. What an address gives is taken as
    if it lay in the working folder.

    Raises `BadInput`, `NotFound`, `Unavailable`, and `BadUsage` when the files do not go together.
    """
    stacks = [
        _fetched_stack(name, environment, substituted)
        if is_url(name)
        else load_stack(Path(name), environment, substituted=substituted)
        for name in names
    ]
    return stacks[0] if len(stacks) == 1 else merged(stacks)


def load_stack(path: Path, environment: Mapping[str, str], *, substituted: bool = True) -> Stack:
    """Read a stack file and the environment files that it names. Raises `BadInput`, `NotFound`."""
    text = _text_of(path, str(path))
    return _parsed(text, environment if substituted else None, str(path), path.parent)


def merged(stacks: Sequence[Stack]) -> Stack:
    """Several stacks as one. Raises `BadUsage` for a function that two of them have, or for two gateways."""
    seen: dict[str, str] = {}
    for stack in stacks:
        for function in stack.functions:
            if function.name in seen:
                files = f"{seen[function.name]} and in {stack.file}"
                raise BadUsage(f"function {function.name!r} stands in {files}: rename one, or use the files one by one")
            seen[function.name] = stack.file
    named = {normalize_gateway(stack.gateway) for stack in stacks if stack.gateway} - {DEFAULT_GATEWAY}
    if len(named) > 1:
        raise BadUsage(f"the stack files name different gateways ({', '.join(sorted(named))}): use them one by one")
    return Stack(
        file=", ".join(stack.file for stack in stacks),
        folder=stacks[0].folder,
        gateway=next(iter(named), ""),
        functions=tuple(function for stack in stacks for function in stack.functions),
        templates=tuple(template for stack in stacks for template in stack.templates),
        warnings=tuple(warning for stack in stacks for warning in stack.warnings),
        parts=tuple(stacks),
    )


def _fetched_stack(url: str, environment: Mapping[str, str], substituted: bool) -> Stack:
    shown = without_password(url)
    try:
        text = fetch(url, environment, MAX_BYTES).decode()
    except UnicodeDecodeError:
        raise BadInput(f"{shown}: is not UTF-8 text") from None
    return _parsed(text, environment if substituted else None, shown, Path())


def _parsed(text: str, environment: Mapping[str, str] | None, file: str, folder: Path) -> Stack:
    def read(name: str) -> str:
        return _text_of(inside(folder, name, f"{file}: environment_file {name!r}"), name)

    return parse_stack(text, environment, file=file, folder=folder, read=read)


def parse_stack(
    text: str,
    environment: Mapping[str, str] | None,
    *,
    file: str = "stack.yml",
    folder: Path = Path(),
    read: ReadFile | None = None,
) -> Stack:
    """The stack that a text stands for. `environment` is for `${V}`; None leaves the text as it is.

    Raises `BadInput` as `FILE:LINE:COLUMN: KEY: reason` for the first thing that cannot be used.
    """
    root = compose(_substituted(text, environment, file), file)
    if root is None or root.is_empty:
        raise BadInput(f"{file}: is empty: it needs `provider` and `functions`")
    keys = root.known_entries(_ROOT_KEYS)
    _check_version(keys.get("version"))
    functions = keys.get("functions")
    configuration = _Configuration.of(keys.get("configuration"))
    return Stack(
        file=file,
        folder=folder,
        gateway=_gateway(root, keys.get("provider")),
        functions=_functions(functions, read) if functions else (),
        templates=configuration.templates,
        copy=configuration.copy,
        warnings=tuple(root.reading.warnings),
    )


def select(functions: tuple[StackFunction, ...], filter_: str = "", regex: str = "") -> tuple[StackFunction, ...]:
    """The functions whose names match `filter_` (a glob, only `*`) or `regex` (anywhere in the name).

    Raises `BadUsage` for both or a bad expression, `NotFound` when there is no match (contract section 9.2).
    """
    if filter_ and regex:
        raise BadUsage("--filter and --regex exclude each other: give one of them")
    pattern = _pattern(filter_, regex)
    chosen = tuple(function for function in functions if pattern.search(function.name))
    if not chosen:
        known = ", ".join(function.name for function in functions) or "none"
        raise NotFound(f"no function of the stack matches {filter_ or regex!r}; the stack has: {known}")
    return chosen


def _pattern(filter_: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(_glob(filter_) if filter_ else regex)
    except re.error as error:
        raise BadUsage(f"--regex {regex!r} is not a regular expression: {error}") from None


def _glob(pattern: str) -> str:
    return r"\A" + ".*".join(re.escape(part) for part in pattern.split("*")) + r"\Z"


def _text_of(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInput(f"{shown}: is larger than {MAX_BYTES >> 20} MiB, too large for a stack file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {shown}: name the stack file with -f, or make one with `stoker new`"
        ) from None
    except UnicodeDecodeError:
        raise BadInput(f"{shown}: is not UTF-8 text") from None
    except OSError as error:
        raise BadInput(f"{shown}: cannot be read: {error.strerror}") from None


def _substituted(text: str, environment: Mapping[str, str] | None, file: str) -> str:
    if environment is None:
        return text
    try:
        return substitute(text, environment)
    except BadInput as error:
        raise BadInput(f"{file}:{error}") from None


def _check_version(version: Value | None) -> None:
    if version and version.text() not in ("", "1.0"):
        raise version.error(f"only version 1.0 can be read, and this is {version.text()[:20]!r}")


def _gateway(root: Value, provider: Value | None) -> str:
    if provider is None:
        raise root.error("`provider` is missing: write `provider: {name: openfaas}`")
    keys = provider.known_entries(("name", "gateway"))
    name = keys.get("name")
    if name is None or name.text() not in PROVIDERS:
        raise (name or provider).error("the provider's name must be openfaas (or faas)")
    gateway = keys.get("gateway")
    return gateway.text() if gateway else ""


@dataclass(frozen=True)
class _Configuration:
    templates: tuple[TemplateSource, ...] = ()
    copy: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Value | None) -> _Configuration:
        keys = value.known_entries(("templates", "copy")) if value else {}
        templates, copy = keys.get("templates"), keys.get("copy")
        return cls(
            templates=tuple(_template(item) for item in templates.items()) if templates else (),
            copy=copy.texts() if copy else (),
        )


def _template(value: Value) -> TemplateSource:
    keys = value.known_entries(("name", "source"))
    if "name" not in keys:
        raise value.error("a template needs a `name`")
    source = keys.get("source")
    return TemplateSource(keys["name"].text(), source.text() if source else "")


def _functions(value: Value, read: ReadFile | None) -> tuple[StackFunction, ...]:
    return tuple(read_function(name, entry, read) for name, entry in value.entries().items())
