"""One function of a stack file: its keys, each read as the kind that it must be (contract section 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from stoker_sdk.document import Value, compose
from stoker_sdk.function import Resources
from stoker_sdk.names import (
    check_environment_key,
    check_function_name,
    check_label,
    check_namespace,
    check_qualified_key,
    check_secret_name,
)
from stoker_sdk.settings import SETTINGS, read_scale, read_settings
from stoker_sdk.units import parse_quantity

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
    "copy",
    "scale",
    *SETTINGS,
)


@dataclass(frozen=True)
class StackFunction:
    """One function of a stack, as written (contract section 9.2). `environment` has the environment files in
    it.

    `settings` are ours (`SETTINGS`), as they travel; `labels` has those that `scale` stands for. `copy` is ours, too:
    what this function shares with others, beside what the file's `configuration.copy` gives to all.
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
    copy: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_built_here(self) -> bool:
        """Whether there is source to build the image from."""
        return bool(self.lang and self.handler and not self.skip_build)


Check = Callable[[str], object]
"""Raises `BadInput` for a text that cannot be used."""

ReadFile = Callable[[str], str]
"""Gives the text of a file that the stack names, relative to its folder. Raises `BadInput`."""


def read_function(name: str, value: Value, read: ReadFile | None) -> StackFunction:
    """The function of that name. Raises `BadInput` with the place of what cannot be used."""
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
            copy=self._texts("copy"),
            settings=read_settings(self._values),
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
        labels = {name: entry.text() for name, entry in entries.items()}
        scale = self._values.get("scale")
        for key, text in (read_scale(scale) if scale else {}).items():
            if labels.setdefault(key, text) != text:
                raise entries[key].error(f"says {labels[key]!r}, and `scale` says {text!r}: write it in one place")
        return labels

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


def _environment_file(name: str, read: ReadFile) -> dict[str, str]:
    root = compose(read(name), name)
    entries = root.known_entries(("environment",)) if root else {}
    environment = entries.get("environment")
    return environment.map_of_texts() if environment else {}
