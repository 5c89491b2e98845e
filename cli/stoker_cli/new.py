"""`stoker new`: a function's folder from a template, and its entry in a stack file.

The folder appears by a rename and the stack file by another, so nothing half-written is left behind.
"""

from __future__ import annotations

import re
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
from stoker_sdk.errors import BadInput, BadUsage, Conflict, NotFound, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.gateway_address import normalize_gateway
from stoker_sdk.names import check_function_name
from stoker_sdk.units import parse_quantity

if TYPE_CHECKING:
    from stoker_builder.templates import Template
    from stoker_cli.stack_file import NewFunction

NEW_STACK = Path("stack.yml")
IGNORED = ("template", "build", ".secrets")
"""What `.gitignore` keeps out of git: fetched templates, build contexts, values of secrets."""

_HANDLER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,10}")


@click.command("new", cls=Command)
@click.argument("name", required=False)
@click.option("--lang", default="", metavar="TEMPLATE", help="The template; `stoker template list` shows them.")
@click.option("-a", "--append", type=FILE, metavar="FILE", help="Add the function to this stack file.")
@click.option("-p", "--prefix", default="", metavar="PREFIX", help="In front of the image. [default: $OPENFAAS_PREFIX]")
@click.option("-g", "--gateway", default="", metavar="URL", help="The gateway to write into the stack file.")
@click.option("--handler", default="", metavar="DIR", help="The folder of the function. [default: its name]")
@click.option("--memory-limit", default="", metavar="QUANTITY", help="The most memory it may use, such as 128Mi.")
@click.option("--cpu-limit", default="", metavar="QUANTITY", help="The most CPU it may use, such as 500m.")
@click.option("--memory-request", default="", metavar="QUANTITY", help="The memory to keep free for it.")
@click.option("--cpu-request", default="", metavar="QUANTITY", help="The CPU to keep free for it.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--list", "lists", is_flag=True, help="List the templates.")
@click.pass_obj
def new(
    surroundings: Surroundings,
    name: str | None,
    lang: str,
    append: Path | None,
    prefix: str,
    gateway: str,
    handler: str,
    memory_limit: str,
    cpu_limit: str,
    memory_request: str,
    cpu_request: str,
    quiet: bool,
    lists: bool,
) -> None:
    """Start a function: its folder, from a template, and its entry in stack.yml.

    \b
    stoker new greet --lang python3
    stoker new shout --lang python3-http --append stack.yml --memory-limit 128Mi
    stoker new --list
    """
    from stoker_cli.stack_file import NewFunction

    if lists:
        _list_templates()
        return
    if not name or not lang:
        raise BadUsage("give the function's NAME and its template with --lang; `stoker new --list` shows the templates")
    check_function_name(name)
    folder = _handler(handler or name)
    template = _template(lang)
    function = NewFunction(
        name=name,
        lang=template.name,
        image=_image(prefix or surroundings.environment.get("OPENFAAS_PREFIX", ""), name),
        handler=handler.rstrip("/"),
        limits=_quantities("limit", memory_limit, cpu_limit),
        requests=_quantities("request", memory_request, cpu_request),
    )
    path, text = _stack_file(append, function, normalize_gateway(gateway) if gateway else "")
    _write(folder, template, path, text)
    _ignore_in_git()
    if quiet:
        return
    click.echo(f"Folder: {folder} created, from the template {template.name}.")
    click.echo(f"Stack file: {path} {'changed' if append else 'written'}.")
    if template.welcome.strip():
        click.echo(f"\n{template.welcome.strip()}")
    click.echo(f"\nNext: stoker up -f {path}")


def _list_templates() -> None:
    from stoker_builder.templates import list_templates

    for template in list_templates(PROJECT_TEMPLATES):
        click.echo(template.name)


def _template(lang: str) -> Template:
    from stoker_builder.templates import find_template

    try:
        return find_template(lang, PROJECT_TEMPLATES)
    except NotFound as error:
        raise NotFound(f"{error}, or fetch it with `stoker template store pull {lang}`") from None


def _handler(text: str) -> Path:
    if not _HANDLER.fullmatch(text.rstrip("/")) or ".." in text:
        raise BadInput(f"--handler {text[:80]!r} is not allowed: name a folder below this one, such as functions/greet")
    return Path(text)


def _image(prefix: str, name: str) -> str:
    from stoker_sdk.deployment import prefixed

    return prefixed(f"{name}:latest", prefix) if prefix else f"{name}:latest"


def _quantities(kind: str, memory: str, cpu: str) -> dict[str, str]:
    for what, text in (("memory", memory), ("cpu", cpu)):
        if text:
            parse_quantity(text, f"--{what}-{kind}")
    return {"memory": memory, "cpu": cpu}


def _stack_file(append: Path | None, function: NewFunction, gateway: str) -> tuple[Path, str]:
    """The stack file to write and its whole new text."""
    from stoker_cli.stack_file import appended_stack_text, new_stack_text

    if append is None:
        present = default_stack_file(Path())
        if present is not None:
            raise Conflict(f"{present} exists already: add the function to it with --append {present}")
        return NEW_STACK, new_stack_text(function, gateway)
    try:
        text = append.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {append} to add to: leave --append away to start one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{append} cannot be read: {error}") from None
    return append, appended_stack_text(text, str(append), function)


def _write(folder: Path, template: Template, stack_path: Path, stack_text: str) -> None:
    if folder.exists() or folder.is_symlink():
        raise Conflict(f"{folder} exists already: choose another name, or remove it")
    if any(parent.is_symlink() for parent in folder.parents):
        raise BadInput(f"{folder} lies behind a symbolic link: choose a folder below this one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
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


def _ignore_in_git() -> None:
    """Add to `.gitignore` what is not there yet. A file that cannot be changed is no reason to fail."""
    path = Path(".gitignore")
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        present = {line.strip().strip("/") for line in text.splitlines()}
        missing = [name for name in IGNORED if name not in present]
        if missing and not path.is_symlink():
            start = text if not text or text.endswith("\n") else f"{text}\n"
            write_whole(path, (start + "\n".join(missing) + "\n").encode(), 0o644)
    except (OSError, UnicodeDecodeError):
        click.echo(f"warning: {path} cannot be changed: keep {', '.join(IGNORED)} out of git", err=True)
