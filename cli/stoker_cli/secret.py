"""`stoker secret`: create, list, update and remove secrets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import FILE, Function, Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.secret_files import MAX_SECRET, read_secret
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadInput, BadUsage, Conflict
from stoker_sdk.names import check_secret_name

if TYPE_CHECKING:
    from stoker_sdk.messages import Secret

_VALUE = (
    click.option(
        "--from-literal", metavar="TEXT", help="The value itself. Others may see it in the list of processes."
    ),
    click.option("--from-file", type=FILE, metavar="FILE", help="A file that holds the value."),
    click.option(
        "--trim/--no-trim",
        default=None,
        help="Whether to cut white space around the value. [default: yes, but not for --from-file]",
    ),
)


def value_options(function: Function) -> Function:
    """Adds --from-literal, --from-file and --trim."""
    for option in reversed(_VALUE):
        function = option(function)
    return function


@click.group("secret", context_settings={"help_option_names": ["-h", "--help"]})
def secret() -> None:
    """Create, list, update and remove secrets. A function that names one finds it in
    /var/openfaas/secrets/NAME.

    \b
    stoker secret create api-key --from-file api-key.txt
    stoker deploy --name greet --image greet --secret api-key
    """


@secret.command("create", cls=Command)
@click.argument("name")
@target_options
@value_options
@click.option("--replace", is_flag=True, help="Update the secret when there is one of this name.")
@click.pass_obj
def create(
    surroundings: Surroundings,
    target: Target,
    name: str,
    from_literal: str | None,
    from_file: Path | None,
    trim: bool | None,
    replace: bool,
) -> None:
    """Create a secret, from standard input unless a flag says otherwise.

    \b
    stoker secret create api-key --from-file api-key.txt
    pass show api-key | stoker secret create api-key
    """
    check_secret_name(name)
    new = _secret(name, target.namespace, _value(from_literal, from_file, trim))
    with connected(target, surroundings) as client:
        try:
            client.create_secret(new)
        except Conflict:
            if not replace:
                raise Conflict(f"secret {name!r} exists already: update it, or give --replace") from None
            client.update_secret(new)
    click.echo(f"{name}: created")


@secret.command("seal", cls=Command)
@click.argument("name")
@target_options
@value_options
@click.option("--for", "repository", required=True, metavar="OWNER/REPOSITORY", help="Whose builds may open it.")
@click.pass_obj
def seal_secret(
    surroundings: Surroundings,
    target: Target,
    name: str,
    from_literal: str | None,
    from_file: Path | None,
    trim: bool | None,
    repository: str,
) -> None:
    """Seal a build secret, so that it may stand in a git repository: only the platform can open it, for that
    repository. In stack.yml build_secrets names the file; the step that installs packages has the variable NAME.

    \b
    stoker secret seal INDEX_TOKEN --for me/shop < token.txt > index-token.sealed
    """
    from stoker_cli.runs import split_repository
    from stoker_sdk.sealing import purpose_of, seal

    owner, repository_name = split_repository(repository)
    value = _value(from_literal, from_file, True if trim is None else trim)
    with connected(target, surroundings) as client:
        key = client.runs.seal_key()
    click.echo(seal(key, value, purpose_of(owner, repository_name, name)))


@secret.command("update", cls=Command)
@click.argument("name")
@target_options
@value_options
@click.pass_obj
def update(
    surroundings: Surroundings,
    target: Target,
    name: str,
    from_literal: str | None,
    from_file: Path | None,
    trim: bool | None,
) -> None:
    """Give a secret a new value. Functions that use it are restarted one replica after the other.

    \b
    stoker secret update api-key --from-file api-key.txt
    """
    new = _secret(name, target.namespace, _value(from_literal, from_file, trim))
    with connected(target, surroundings) as client:
        client.update_secret(new)
    click.echo(f"{name}: updated")


@secret.command("list", cls=Command)
@target_options
@json_option
@click.pass_obj
def list_secrets(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    """List the names of the secrets. Values are never shown.

    \b
    stoker secret list
    stoker secret list --json
    """
    with connected(target, surroundings) as client:
        secrets = sorted(client.secrets(target.namespace), key=lambda each: each.name)
    if as_json:
        print_json(secrets)
    else:
        print_table(("Name", "Namespace"), [(each.name, each.namespace) for each in secrets])


secret.add_command(list_secrets, "ls")


@secret.command("remove", cls=Command)
@click.argument("name")
@target_options
@click.pass_obj
def remove(surroundings: Surroundings, target: Target, name: str) -> None:
    """Remove a secret.

    \b
    stoker secret remove api-key
    """
    with connected(target, surroundings) as client:
        client.remove_secret(name, target.namespace)
    click.echo(f"{name}: removed")


@secret.command("apply", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@target_options
@click.option("--folder", type=click.Path(path_type=Path), default=None, metavar="DIR", help="[default: .secrets]")
@click.option("--trim/--no-trim", default=False, help="Whether to cut white space around the values. [default: no]")
@click.pass_obj
def apply(surroundings: Surroundings, target: Target, names: tuple[str, ...], folder: Path | None, trim: bool) -> None:
    """Create or update a secret for each file of the folder .secrets, or for those named. Others stay.

    \b
    stoker secret apply
    stoker secret apply api-key --folder deploy/secrets
    """
    from stoker_cli.secret_files import SECRETS_FOLDER, read_secret, secrets_in

    folder = folder or SECRETS_FOLDER
    files = secrets_in(folder)
    for name in names:
        if name not in files:
            raise BadInput(f"there is no file {folder / name}")
    values = {name: read_secret(path) for name, path in files.items() if not names or name in names}
    if not all(values.values()):
        raise BadInput(f"{folder / next(name for name, value in values.items() if not value)} is empty")
    with connected(target, surroundings) as client:
        for name, value in values.items():
            new = _secret(name, target.namespace, value.strip() if trim else value)
            try:
                client.create_secret(new)
                click.echo(f"{name}: created")
            except Conflict:
                client.update_secret(new)
                click.echo(f"{name}: updated")


@secret.command("generate", cls=Command)
@click.argument("name", required=False)
@click.option("--length", type=click.IntRange(16, 4096), default=32, metavar="BYTES", help="[default: 32]")
@click.option("--folder", type=click.Path(path_type=Path), default=None, metavar="DIR", help="[default: .secrets]")
def generate(name: str | None, length: int, folder: Path | None) -> None:
    """Make up a value that nobody can guess: print it, or with a name write it into the folder .secrets.

    \b
    stoker secret generate api-key && stoker secret apply api-key
    stoker secret generate --length 64 | stoker secret create api-key
    """
    from stoker_cli.secret_files import SECRETS_FOLDER, generated, save_generated

    if name is None:
        click.echo(generated(length))
        return
    check_secret_name(name)
    click.echo(f"{save_generated(name, folder or SECRETS_FOLDER, generated(length))} written")


def _value(from_literal: str | None, from_file: Path | None, trim: bool | None) -> bytes:
    """The secret's bytes. Those of a file stay as they are, unless --trim is given: it may hold no text."""
    if from_literal is not None and from_file is not None:
        raise BadUsage("--from-literal and --from-file exclude each other: give one of them")
    if from_literal is not None:
        value, default = from_literal.encode("utf-8", "surrogateescape"), True
    elif from_file is not None:
        value, default = read_secret(from_file), False
    elif sys.stdin.isatty():
        raise BadUsage("the value is missing: give --from-literal, --from-file, or pipe it in")
    else:
        value, default = sys.stdin.buffer.read(MAX_SECRET + 1), True
        if len(value) > MAX_SECRET:
            raise BadInput(f"the value is larger than {MAX_SECRET >> 20} MiB, too large for a secret")
    value = value.strip() if (default if trim is None else trim) else value
    if not value:
        raise BadInput("the secret's value is empty")
    return value


def _secret(name: str, namespace: str, value: bytes) -> Secret:
    """Raw bytes, and the same as text where it is text, for platforms that know only that (contract section
    3.2).
    """
    from stoker_sdk.messages import Secret

    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    return Secret(name, namespace, text, value)
