"""Templates: what turns a handler folder into a function of a language.

A template is a folder in the contract's layout (section 9.4): `template.yml`, a starter handler, a
Dockerfile. What only our builds need stands in `template.yml` under the key `stoker`, which other clients
ignore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import yaml

from stoker_sdk.errors import BadInput, NotFound

MODES = ("", "python", "native", "http", "streaming", "serializing", "classic", "static")
TOOLCHAINS = ("python", "node", "go", "ruby", "csharp", "program")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?(@[A-Za-z0-9][-A-Za-z0-9_.]*)?")
_FOLDER = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


class BuildOption(msgspec.Struct, frozen=True):
    """System packages that go together under one name (contract section 9.4)."""

    name: str
    packages: list[str] = []


@dataclass(frozen=True)
class Template:
    """One template. `path` is its folder; `test` is the command of the test step, in the handler's folder.

    `handler` is the module with `handle`, for mode `python`; `fprocess` is the command for all others. `mode` is empty
    when only images can be built from it. `toolchain` is the language that builds it. `notes` go into the build's log.
    """

    name: str
    path: Path
    language: str
    aliases: tuple[str, ...]
    fprocess: str
    welcome: str
    handler_folder: str
    mode: str
    handler: str
    test: tuple[str, ...]
    build_options: tuple[BuildOption, ...]
    toolchain: str = "python"
    notes: tuple[str, ...] = ()

    @property
    def starter(self) -> Path:
        """The folder that `new` copies: sample handler, sample test, requirements.txt."""
        return self.path / "function"

    @property
    def steps(self) -> tuple[str, ...]:
        """What decides how a function is built, as text."""
        return (self.mode, self.handler, self.toolchain, self.fprocess, " ".join(self.test))


class _Ours(msgspec.Struct, frozen=True):
    aliases: list[str] = []
    mode: str = ""
    handler: str = ""
    toolchain: str = ""
    test: list[str] = []


class _File(msgspec.Struct, frozen=True):
    language: str = ""
    fprocess: str = ""
    welcome_message: str = ""
    handler_folder: str = "function"
    build_options: list[BuildOption] = []
    stoker: _Ours = _Ours()


def list_templates(folder: Path | None = None) -> list[Template]:
    """Every template by name: those of `folder` (a project's `./template`), then the built-in ones.

    An own template hides the built-in one of its name. Raises `BadInput` for a template.yml that cannot be
    read.
    """
    found: dict[str, Template] = {}
    for template in _all(folder):
        found.setdefault(template.name, template)
    return sorted(found.values(), key=lambda template: template.name)


def find_template(name: str, folder: Path | None = None) -> Template:
    """The template of that name or alias, in `folder` first, then built in; case does not matter.

    Raises `NotFound` with the names that exist, `BadInput` for a name that cannot be one.
    """
    wanted = name.lower()
    if not _NAME.fullmatch(wanted):
        raise BadInput(f"template name {name[:80]!r} is not allowed: use letters, digits, '-', '_' and '.'")
    known = {template.name: template for template in list_templates(folder)}
    # A hidden template's alias leads to the one that hides it.
    aliases = {alias: template.name for template in _all(folder) for alias in template.aliases}
    found = known.get(wanted) or known.get(aliases.get(wanted, ""))
    if found is None:
        raise NotFound(
            f"template {name!r} does not exist: choose one of {', '.join(known)}, "
            f"or put your own into ./template/{name}"
        )
    return found


def load_template(path: Path, name: str = "") -> Template:
    """Read the template in the folder `path`; `name` stands in for the folder's own. Raises `BadInput`."""
    name = name or path.name
    file = _read(path / "template.yml", name)
    _check(file, name)
    return Template(
        name=name,
        path=path,
        language=file.language or name,
        aliases=tuple(alias.lower() for alias in file.stoker.aliases),
        fprocess=file.fprocess,
        welcome=file.welcome_message,
        handler_folder=file.handler_folder or "function",
        mode=file.stoker.mode,
        handler=file.stoker.handler,
        test=tuple(file.stoker.test),
        build_options=tuple(file.build_options),
        toolchain=file.stoker.toolchain or ("python" if file.stoker.mode == "python" else "program"),
    )


def with_local_steps(template: Template) -> Template:
    """The template itself, or the built-in one of its name for one that was pulled from elsewhere and does not say how
    it is built here: handlers that were written for those names have the same layout.
    """
    if template.mode or template.handler_folder != "function":
        return template
    name = template.name.partition("@")[0].lower()
    known = next((one for one in list_templates() if one.mode and name in (one.name, *one.aliases)), None)
    if known is None:
        return template
    note = (
        f"template {template.name}: its template.yml has no `stoker:` key, so the built-in {known.name} is used: "
        "what else is in the folder does not count"
    )
    return replace(known, notes=(note,))


def built_in_folder() -> Path:
    """Where the built-in templates lie: in the installed package, or at the top of the checkout."""
    package = Path(__file__).parent
    installed = package / "_templates"
    return installed if installed.is_dir() else package.parent.parent / "templates"


def _all(folder: Path | None) -> Iterator[Template]:
    for parent in _parents(folder):
        for path in sorted(parent.iterdir()):
            if _NAME.fullmatch(path.name) and (path / "template.yml").is_file():
                yield load_template(path)


def _parents(folder: Path | None) -> list[Path]:
    return [parent for parent in (folder, built_in_folder()) if parent is not None and parent.is_dir()]


def _read(path: Path, name: str) -> _File:
    try:
        # Scalars stay the text that was written, as the contract asks (section 9.1).
        content = yaml.load(path.read_text(), yaml.BaseLoader)
        return msgspec.convert(content or {}, _File)
    except FileNotFoundError:
        raise BadInput(f"template {name!r}: there is no template.yml in it") from None
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"template {name!r}: template.yml cannot be read: {' '.join(str(error).split())}") from error


def _check(file: _File, name: str) -> None:
    if not _FOLDER.fullmatch(file.handler_folder or "function"):
        raise BadInput(f"template {name!r}: handler_folder {file.handler_folder!r} must be the name of one folder")
    if file.stoker.mode not in MODES:
        raise BadInput(f"template {name!r}: stoker.mode {file.stoker.mode!r} is not one of {', '.join(MODES[1:])}")
    if file.stoker.toolchain not in ("", *TOOLCHAINS):
        raise BadInput(
            f"template {name!r}: stoker.toolchain {file.stoker.toolchain!r} is not one of {', '.join(TOOLCHAINS)}"
        )
    if file.stoker.mode not in ("", "python", "static") and not file.fprocess.split():
        raise BadInput(f"template {name!r}: stoker.mode {file.stoker.mode!r} needs fprocess, the command to start")
    if file.stoker.mode == "python" and not _MODULE.fullmatch(file.stoker.handler):
        raise BadInput(f"template {name!r}: stoker.handler must name the module with handle, such as function.handler")
