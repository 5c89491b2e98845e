"""The stack file: which functions there are, what they are built from, and how they run.

Reading it is a pure function of text and environment (contract section 9), so the CLI and the builder see the
same stack, and every refusal names file, line, column and key. Only `load_stack` touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from stoker_sdk.document import Value, compose
from stoker_sdk.errors import BadInput, BadUsage, NotFound
from stoker_sdk.function import Resources
from stoker_sdk.names import (
    check_environment_key,
    check_function_name,
    check_label,
    check_namespace,
    check_qualified_key,
    check_secret_name,
)
from stoker_sdk.paths import inside
from stoker_sdk.substitution import substitute
from stoker_sdk.units import parse_duration, parse_quantity

SETTINGS = ("timeout", "concurrency", "scale", "schedule", "routes", "retries")
"""Keys of a function that are ours; they travel as annotations, so that other clients carry them untouched.
"""

PROVIDERS = ("openfaas", "faas")
_ROOT_KEYS = ("version", "provider", "functions", "configuration")
_FUNCTION_KEYS = (
    "lang",
    "handler",
    "image",
    "fprocess",
    "environment",
    "environment_file",
    "secrets",
    "labels",
    "annotations",
    "constraints",
    "limits",
    "requests",
    "readonly_root_filesystem",
    "namespace",
    "skip_build",
    "build_args",
    "build_options",
    "build_secrets",
    "platforms",
    *SETTINGS,
)


@dataclass(frozen=True)
class StackFunction:
    """One function of a stack, as written (contract section 9.2). `environment` has the environment files in
    it.

    `settings` are ours (`SETTINGS`): scalars as text, everything else as JSON.
    """

    name: str
    lang: str = ""
    handler: str = ""
    image: str = ""
    fprocess: str = ""
    namespace: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    limits: Resources | None = None
    requests: Resources | None = None
    readonly_root_filesystem: bool = False
    skip_build: bool = False
    build_args: Mapping[str, str] = field(default_factory=dict)
    build_options: tuple[str, ...] = ()
    build_secrets: Mapping[str, str] = field(default_factory=dict)
    platforms: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_built_here(self) -> bool:
        """Whether there is source to build the image from."""
        return bool(self.lang and self.handler and not self.skip_build)


@dataclass(frozen=True)
class TemplateSource:
    """One entry of `configuration.templates`: where an own template comes from."""

    name: str
    source: str


@dataclass(frozen=True)
class Stack:
    """A whole stack file. `folder` is what paths are relative to; `warnings` are lines for the user."""

    file: str
    folder: Path
    gateway: str = ""
    functions: tuple[StackFunction, ...] = ()
    templates: tuple[TemplateSource, ...] = ()
    copy: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def handler_folder(self, function: StackFunction) -> Path:
        """Where the function's source is. Raises `BadInput` when that leaves the stack's folder or is no
        folder.
        """
        what = f"{self.file}: functions.{function.name}.handler"
        folder = inside(self.folder, function.handler, what)
        if not folder.is_dir():
            raise BadInput(f"{what}: there is no folder {function.handler!r} beside the stack file")
        return folder


Check = Callable[[str], object]
"""Raises `BadInput` for a text that cannot be used."""

ReadFile = Callable[[str], str]
"""Gives the text of a file that the stack names, relative to its folder. Raises `BadInput`."""


def load_stack(path: Path, environment: Mapping[str, str], *, substituted: bool = True) -> Stack:
    """Read a stack file and the environment files that it names. Raises `BadInput`, `NotFound`."""
    folder = path.parent

    def read(name: str) -> str:
        return _text_of(inside(folder, name, f"environment_file {name!r}"), name)

    text = _text_of(path, str(path))
    return parse_stack(text, environment if substituted else None, file=str(path), folder=folder, read=read)


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
        return path.read_text(encoding="utf-8")
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
    return tuple(_function(name, entry, read) for name, entry in value.entries().items())


def _function(name: str, value: Value, read: ReadFile | None) -> StackFunction:
    value.checked(check_function_name, name)
    return _Keys(value.known_entries(_FUNCTION_KEYS)).function(name, read)


class _Keys:
    """The keys of one function, each read as the kind that it must be."""

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values

    def function(self, name: str, read: ReadFile | None) -> StackFunction:
        return StackFunction(
            name=name,
            lang=self._text("lang").lower(),
            handler=self._text("handler"),
            image=self._text("image"),
            fprocess=self._text("fprocess"),
            namespace=self._checked_text("namespace", check_namespace),
            environment={**self._map("environment", check_environment_key), **self._environment_files(read)},
            secrets=self._texts("secrets", check_secret_name),
            labels=self._labels(),
            annotations=self._map("annotations", lambda key: check_qualified_key(key, "annotation")),
            constraints=self._texts("constraints"),
            limits=self._resources("limits"),
            requests=self._resources("requests"),
            readonly_root_filesystem=self._flag("readonly_root_filesystem"),
            skip_build=self._flag("skip_build"),
            build_args=self._map("build_args"),
            build_options=self._texts("build_options"),
            build_secrets=self._map("build_secrets"),
            platforms=self._text("platforms"),
            settings=self._settings(),
        )

    def _text(self, key: str) -> str:
        value = self._values.get(key)
        return value.text() if value else ""

    def _checked_text(self, key: str, check: Check) -> str:
        text = self._text(key)
        if text:
            self._values[key].checked(check, text)
        return text

    def _flag(self, key: str) -> bool:
        value = self._values.get(key)
        return value.flag() if value else False

    def _texts(self, key: str, check: Check = str) -> tuple[str, ...]:
        value = self._values.get(key)
        items = list(value.items()) if value else []
        for item in items:
            item.checked(check, item.text())
        return tuple(item.text() for item in items)

    def _map(self, key: str, check_key: Check = str) -> dict[str, str]:
        value = self._values.get(key)
        entries = value.entries() if value else {}
        for name, entry in entries.items():
            entry.checked(check_key, name)
        return {name: entry.text() for name, entry in entries.items()}

    def _labels(self) -> dict[str, str]:
        value = self._values.get("labels")
        entries = value.entries() if value else {}
        for name, entry in entries.items():
            entry.checked(check_label, name, entry.text())
        return {name: entry.text() for name, entry in entries.items()}

    def _environment_files(self, read: ReadFile | None) -> dict[str, str]:
        """Later files win over earlier ones, and all of them over `environment` (contract section 9.2)."""
        value = self._values.get("environment_file")
        merged: dict[str, str] = {}
        for item in value.items() if value else ():
            name = item.text()
            if read is None:
                raise item.error("environment files cannot be read here")
            merged |= _environment_file(name, read)
        return merged

    def _resources(self, key: str) -> Resources | None:
        value = self._values.get(key)
        if value is None or value.is_empty:
            return None
        quantities = value.known_entries(field.encode_name for field in msgspec.structs.fields(Resources))
        for name, entry in quantities.items():
            if name in ("memory", "cpu") and entry.text():
                entry.checked(parse_quantity, entry.text())
        return msgspec.convert({name: entry.text() for name, entry in quantities.items()}, Resources)

    def _settings(self) -> dict[str, str]:
        self._checked_text("timeout", parse_duration)
        self._checked_text("concurrency", _check_whole_number)
        present = {key: self._values[key] for key in SETTINGS if key in self._values}
        return {key: _setting(value) for key, value in present.items() if not value.is_empty}


def _environment_file(name: str, read: ReadFile) -> dict[str, str]:
    root = compose(read(name), name)
    entries = root.known_entries(("environment",)) if root else {}
    environment = entries.get("environment")
    return environment.map_of_texts() if environment else {}


def _setting(value: Value) -> str:
    plain = value.plain()
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _check_whole_number(text: str) -> None:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadInput(f"concurrency must be a whole number, and is {text[:40]!r}")
