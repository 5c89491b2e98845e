"""`stoker new`: a function's folder from a template, and its entry in a stack file.

The folder appears by a rename and the stack file by another, so nothing half-written is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import default_stack_file
from stoker_cli.options import FILE
from stoker_cli.surroundings import Surroundings
from stoker_cli.template import PROJECT_TEMPLATES
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.gateway_address import normalize_gateway
from stoker_sdk.names import check_function_name

if TYPE_CHECKING:
    from stoker_builder.templates import Template

NEW_STACK = Path("stack.yml")


@click.command("new", cls=Command)
@click.argument("name")
@click.option("--lang", required=True, metavar="TEMPLATE", help="The template; `stoker template list` shows them.")
@click.option("-a", "--append", type=FILE, metavar="FILE", help="Add the function to this stack file.")
@click.option("-p", "--prefix", default="", metavar="PREFIX", help="In front of the image. [default: $OPENFAAS_PREFIX]")
@click.option("-g", "--gateway", default="", metavar="URL", help="The gateway to write into the stack file.")
@click.pass_obj
def new(surroundings: Surroundings, name: str, lang: str, append: Path | None, prefix: str, gateway: str) -> None:
    """Start a function: its folder, from a template, and its entry in stack.yml.

    \b
    stoker new greet --lang python3
    stoker new shout --lang python3-http --append stack.yml
    """
    from stoker_builder.templates import find_template

    check_function_name(name)
    template = find_template(lang, PROJECT_TEMPLATES)
    prefix = prefix or surroundings.environment.get("OPENFAAS_PREFIX", "")
    image = f"{prefix.rstrip('/')}/{name}:latest" if prefix else f"{name}:latest"
    path, text = _stack_file(append, name, template.name, image, normalize_gateway(gateway) if gateway else "")
    _write(Path(name), template, path, text)
    click.echo(f"Folder: {name} created, from the template {template.name}.")
    click.echo(f"Stack file: {path} {'changed' if append else 'written'}.")
    if template.welcome.strip():
        click.echo(f"\n{template.welcome.strip()}")
    click.echo(f"\nNext: stoker up -f {path}")


def _stack_file(append: Path | None, name: str, lang: str, image: str, gateway: str) -> tuple[Path, str]:
    """The stack file to write and its whole new text."""
    from stoker_cli.stack_file import appended_stack_text, new_stack_text

    if append is None:
        present = default_stack_file(Path())
        if present is not None:
            raise Conflict(f"{present} exists already: add the function to it with --append {present}")
        return NEW_STACK, new_stack_text(name, lang, image, gateway)
    try:
        text = append.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {append} to add to: leave --append away to start one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{append} cannot be read: {error}") from None
    return append, appended_stack_text(text, str(append), name, lang, image)


def _write(folder: Path, template: Template, stack_path: Path, stack_text: str) -> None:
    if folder.exists() or folder.is_symlink():
        raise Conflict(f"{folder} exists already: choose another name, or remove it")
    try:
        _write_folder(folder, template)
        try:
            mode = stack_path.stat().st_mode & 0o777 if stack_path.exists() else 0o644
            write_whole(stack_path, stack_text.encode(), mode)
        except BaseException:
            shutil.rmtree(folder)
            raise
    except OSError as error:
        raise StokerError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from None


def _write_folder(folder: Path, template: Template) -> None:
    if not template.starter.is_dir():
        raise BadInput(f"template {template.name!r} has no folder `function` to start from")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as staging:
        copy = Path(staging) / "function"
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(template.starter, copy, ignore=ignored, copy_function=shutil.copy)
        copy.rename(folder)
