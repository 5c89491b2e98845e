"""`stoker login`: check credentials against a gateway and store them."""

from __future__ import annotations

import sys

import click

from stoker_cli.command import Command
from stoker_cli.connection import client_with, gateway_of
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.data_dir import ADMIN
from stoker_sdk.errors import BadUsage, Unauthorized


@click.command("login", cls=Command)
@target_options
@click.option("-u", "--username", default=ADMIN, metavar="NAME", help="The user. [default: admin]")
@click.option("-p", "--password", default=None, metavar="TEXT", help="The password. Others may see it: prefer -s.")
@click.option("-s", "--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.pass_obj
def login(
    surroundings: Surroundings, target: Target, username: str, password: str | None, password_stdin: bool
) -> None:
    """Check the credentials for a gateway and store them, where faas-cli finds them too.

    On the machine where `stoker serve` runs, the user who runs it needs no login.

    \b
    stoker login --gateway https://functions.example.org
    cat password.txt | stoker login -s -g https://functions.example.org
    """
    from stoker_sdk.credentials import basic_authorization

    gateway = gateway_of(target, surroundings)
    secret = _password(password, password_stdin)
    with client_with(gateway, basic_authorization(username, secret), target, surroundings) as client:
        try:
            client.functions()
        except Unauthorized:
            raise Unauthorized(f"{gateway} does not accept this user and password") from None
    surroundings.credentials.save(gateway, username, secret)
    click.echo(f"credentials saved for {username} {gateway}")


def _password(password: str | None, from_stdin: bool) -> str:
    if password is not None and from_stdin:
        raise BadUsage("--password and --password-stdin exclude each other: give one of them")
    if password is None and from_stdin:
        password = sys.stdin.read().strip()
    elif password is None and sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, err=True)
    if not password:
        raise BadUsage("the password is missing: pipe it in with --password-stdin, or give --password")
    return password
