"""Stages 4 and 6: the artefact, a read-only folder named by the hash of everything that went into it.

Its shape, which the local provider reads: `artefact.json` (`Artefact`), and beside it the template's own
modules and the handler's folder as a package.
"""

from __future__ import annotations

import py_compile
from pathlib import Path

import msgspec

from stoker_builder.plan import Plan
from stoker_builder.source import is_test
from stoker_builder.tree import close_tree, copy_tree, files_below, make_durable
from stoker_sdk.units import now_rfc3339

MANIFEST = "artefact.json"

_NOT_OF_THE_FUNCTION = {"Dockerfile", "README.md", "template.yml", "meta.json", ".dockerignore"}


class Artefact(msgspec.Struct, frozen=True, rename="camel"):
    """The content of `artefact.json`. `digest` is `sha256:` and 64 hex digits; `environment` the digits or
    empty.
    """

    name: str
    template: str
    digest: str
    mode: str
    handler: str
    environment: str
    fprocess: str
    python: str
    created_at: str


def assemble(plan: Plan, folder: Path) -> None:
    """Fill the new `folder` with the function as it will run, tests included, not yet compiled."""
    folder.mkdir()
    _copy_template(plan, folder)
    copy_tree(plan.request.handler, folder / plan.template.handler_folder)
    package = folder / plan.template.handler_folder / "__init__.py"
    package.touch()


def finish(plan: Plan, folder: Path, final: Path) -> None:
    """Take the tests out, write the manifest, byte-compile with the names of the `final` place."""
    for path in list(files_below(folder / plan.template.handler_folder)):
        if is_test(path) or path.name == "conftest.py":
            path.unlink()
    manifest = Artefact(
        name=plan.request.name,
        template=plan.template.name,
        digest=f"sha256:{plan.digest}",
        mode=plan.template.mode,
        handler=plan.template.handler,
        environment=plan.environment,
        fprocess=plan.template.fprocess,
        python=plan.python,
        created_at=now_rfc3339(),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    for path in [path for path in files_below(folder) if path.suffix == ".py"]:
        _compile(path, final / path.relative_to(folder))


def publish(folder: Path, final: Path, group: int | None) -> None:
    """Close the folder and put it in its place at once."""
    final.parent.mkdir(exist_ok=True)
    final.parent.chmod(0o711)
    close_tree(folder, group)
    make_durable(folder)
    folder.rename(final)


def _copy_template(plan: Plan, folder: Path) -> None:
    """What a template brings beside its starter: modules that its functions share."""
    for path in plan.template.path.iterdir():
        if path.name in _NOT_OF_THE_FUNCTION or path.name in ("function", plan.template.handler_folder):
            continue
        if path.is_dir() and not path.is_symlink():
            copy_tree(path, folder / path.name)
        elif path.is_file() and not path.is_symlink():
            (folder / path.name).write_bytes(path.read_bytes())


def _compile(path: Path, final: Path) -> None:
    py_compile.compile(
        str(path),
        dfile=str(final),
        doraise=True,
        quiet=2,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
