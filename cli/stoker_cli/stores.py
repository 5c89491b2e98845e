"""The function store and the template store: a JSON list at a web address or in a file (contract sections 9.4
and 13.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from stoker_sdk.errors import BadInput, NotFound, TooLarge
from stoker_sdk.fetch import fetch, is_url, without_password
from stoker_sdk.stack import StackFunction

FUNCTION_STORE = "https://raw.githubusercontent.com/openfaas/store/master/functions.json"
TEMPLATE_STORE = "https://raw.githubusercontent.com/openfaas/store/master/templates.json"
TEMPLATE_REPOSITORY = "https://github.com/openfaas/templates.git"
MAX_BYTES = 4 << 20

T = TypeVar("T")


class StoreFunction(msgspec.Struct, frozen=True):
    """One entry of the function store. `images` by architecture; the oldest stores have one `image`."""

    name: str
    title: str = ""
    description: str = ""
    repo_url: str = ""
    author: str = ""
    images: dict[str, str] = {}
    image: str = ""
    fprocess: str = ""
    environment: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    read_only: bool = msgspec.field(default=False, name="readOnlyRootFilesystem")

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.images) or (("x86_64",) if self.image else ())

    def image_for(self, architecture: str) -> str:
        """Raises `NotFound` with the architectures that there are."""
        image = self.images.get(architecture) or (self.image if architecture == "x86_64" else "")
        if not image:
            known = ", ".join(self.architectures) or "none"
            raise NotFound(f"store function {self.name!r} has no image for {architecture}; it has: {known}")
        return image

    def function(self, name: str, architecture: str) -> StackFunction:
        """The entry as a function of that name; the process goes where the contract puts it."""
        return StackFunction(
            name=name or self.name,
            image=self.image_for(architecture),
            fprocess=self.fprocess,
            environment=self.environment or {},
            labels=self.labels or {},
            annotations=self.annotations or {},
            readonly_root_filesystem=self.read_only,
        )


class StoreTemplate(msgspec.Struct, frozen=True):
    """One entry of the template store; `repo` is what git fetches."""

    template: str
    platform: str = ""
    language: str = ""
    source: str = ""
    description: str = ""
    repo: str = ""
    official: str = "false"
    recommended: bool = False


class _FunctionStore(msgspec.Struct, frozen=True):
    functions: list[StoreFunction] = []


def store_functions(address: str, environment: Mapping[str, str]) -> list[StoreFunction]:
    """The entries at an address or in a file (empty: `OPENFAAS_STORE`, else the public one), by name."""
    place = address or environment.get("OPENFAAS_STORE") or FUNCTION_STORE
    return sorted(_read(place, environment, _FunctionStore).functions, key=lambda each: each.name)


def store_templates(address: str, environment: Mapping[str, str]) -> list[StoreTemplate]:
    """The same for templates, with `OPENFAAS_TEMPLATE_STORE_URL`."""
    place = address or environment.get("OPENFAAS_TEMPLATE_STORE_URL") or TEMPLATE_STORE
    return sorted(_read(place, environment, list[StoreTemplate]), key=lambda each: each.template)


def find_function(functions: list[StoreFunction], name: str) -> StoreFunction:
    """By name, or by title, in any case. Raises `NotFound`."""
    for entry in functions:
        if name.lower() in (entry.name.lower(), entry.title.lower()):
            return entry
    raise NotFound(f"the store has no function {name[:80]!r}; `stoker store list` shows what there is")


def find_store_template(templates: list[StoreTemplate], name: str) -> StoreTemplate:
    """By its name, or by `SOURCE/NAME` where several have one name. Raises `NotFound`, `BadInput`."""
    source, slash, base = name.rpartition("/")
    found = [each for each in templates if each.template == base and (not slash or each.source == source)]
    official = [each for each in found if each.official == "true"]
    if not found:
        raise NotFound(f"the store has no template {name[:80]!r}; `stoker template store list` shows what there is")
    if len(found) > 1 and len(official) != 1:
        names = ", ".join(f"{each.source}/{each.template}" for each in found)
        raise BadInput(f"several templates are called {name!r}: choose one of {names}")
    return official[0] if official else found[0]


def _read(place: str, environment: Mapping[str, str], kind: type[T]) -> T:
    shown = without_password(place)
    content = fetch(place, environment, MAX_BYTES) if is_url(place) else _file(Path(place))
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{shown} is not a store: {str(error)[:200]}") from None


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}: a store is a file, or an http(s) address") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise TooLarge(f"{path} is larger than {MAX_BYTES >> 20} MiB, too large for a store")
    return content
