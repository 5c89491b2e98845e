"""`stoker registry-login`: a file with a registry's credentials, in Docker's form."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_sdk.errors import BadUsage, StokerError
from stoker_sdk.files import write_whole

FILE = Path("credentials/config.json")
_DOCKER_HUB = "https://index.docker.io/v1/"


@click.command("registry-login", cls=Command)
@click.option("--server", default=_DOCKER_HUB, metavar="HOST", help="The registry. [default: Docker Hub]")
@click.option("-u", "--username", default="", metavar="NAME", help="The user.")
@click.option("-p", "--password", default=None, metavar="TEXT", help="The password. Others may see it: prefer -s.")
@click.option("-s", "--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--ecr", is_flag=True, help="Amazon's registry: let its credential helper log in.")
@click.option("--account-id", default="", metavar="ID", help="The account, for --ecr.")
@click.option("--region", default="", metavar="NAME", help="The region, for --ecr.")
def registry_login(
    server: str,
    username: str,
    password: str | None,
    password_stdin: bool,
    ecr: bool,
    account_id: str,
    region: str,
) -> None:
    """Write ./credentials/config.json, with which builders and clusters log in to a registry. Nobody is asked
    whether the password is right. Keep the file out of git.

    \b
    stoker registry-login --server ghcr.io --username me --password-stdin < token.txt
    stoker registry-login --ecr --account-id 123456789012 --region eu-west-1
    """
    import msgspec

    content = _ecr(account_id, region) if ecr else _basic(server, username, _password(password, password_stdin))
    try:
        FILE.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(FILE, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    except OSError as error:
        raise StokerError(f"{FILE} cannot be written: {error.strerror}") from None
    click.echo(f"{FILE} written")


def _basic(server: str, username: str, password: str) -> dict[str, object]:
    if not username or not server:
        raise BadUsage("the user is missing: give --username")
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"auths": {server: {"auth": token}}}


def _ecr(account_id: str, region: str) -> dict[str, object]:
    is_region = region.replace("-", "").isalnum() and region.isascii()
    if not (account_id.isascii() and account_id.isdigit() and is_region):
        raise BadUsage("--ecr needs the number --account-id and the name --region")
    return {"credHelpers": {f"{account_id}.dkr.ecr.{region}.amazonaws.com": "ecr-login"}}


def _password(password: str | None, from_stdin: bool) -> str:
    if (password is None) == (not from_stdin):
        raise BadUsage("give the password with --password-stdin or with --password, one of the two")
    found = sys.stdin.read().strip() if from_stdin else password
    if not found:
        raise BadUsage("the password is empty")
    return found
