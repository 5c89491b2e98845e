"""`stoker remote`: the platform's own git remote, which a push deploys from."""

from __future__ import annotations

import base64
import binascii
import getpass
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected, gateway_of
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json
from stoker_cli.runs import split_repository
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import Conflict, NotFound, StokerError, Unauthorized
from stoker_sdk.gateway_address import is_loopback

_NOT_ALLOWED = re.compile(r"[^a-z0-9-]+")


@click.group("remote", context_settings={"help_option_names": ["-h", "--help"]})
def remote() -> None:
    """The gateway as a git remote. A push to it is built, tested and deployed, and its progress comes back as you wait.

    \b
    stoker remote add
    git push stoker main
    """


@remote.command("add", cls=Command)
@click.argument("repository", required=False, metavar="[OWNER/NAME]")
@target_options
@click.option("--name", default="stoker", metavar="REMOTE", help="What git calls it. [default: stoker]")
@click.pass_obj
def add(surroundings: Surroundings, target: Target, repository: str | None, name: str) -> None:
    """Add the gateway as a remote of the git repository here. The first push makes the repository there.

    OWNER and NAME are yours to choose, by default your user name and the folder's. git gets the credentials from this
    command when it needs them, so they stand in no file of the repository.

    \b
    stoker remote add
    stoker remote add team/shop --gateway https://functions.example.org
    """
    top = _top()
    owner, repository_name = split_repository(repository or f"{_plain(getpass.getuser())}/{_plain(top.name)}")
    gateway = gateway_of(target, surroundings)
    url = f"{gateway}/git/{owner}/{repository_name}"
    _add(name, url)
    section = f"credential.{gateway}"
    _git("config", "--replace-all", f"{section}.helper", "")  # no other helper is to keep the password
    _git("config", "--add", f"{section}.helper", _helper(surroundings))
    ca = target.ca or surroundings.data_dir.ca_certificate
    if gateway.startswith("https:") and (target.ca or is_loopback(gateway)) and ca.is_file():
        _git("config", f"http.{gateway}.sslCAInfo", str(ca.absolute()))
    click.echo(f"{name}: {url}")
    first = "" if _has_commits() else 'git add --all && git commit -m "first" && '
    click.echo(f"Now: {first}git push {name} {_branch()}")


@remote.command("list", cls=Command)
@target_options
@json_option
@click.pass_obj
def list_repositories(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    """List the repositories that the gateway keeps.

    \b
    stoker remote list
    """
    with connected(target, surroundings) as client:
        found = client.runs.repositories()
        if as_json:
            print_json(found)
            return
        for each in found:
            click.echo(f"{each.owner}/{each.name}: {client.gateway}/git/{each.owner}/{each.name}")


@remote.command("remove", cls=Command)
@click.argument("repository", metavar="OWNER/NAME")
@target_options
@click.pass_obj
def remove(surroundings: Surroundings, target: Target, repository: str) -> None:
    """Delete a repository on the gateway, with its functions. Clones of it stay.

    \b
    stoker remote remove me/greet
    """
    owner, name = split_repository(repository)
    with connected(target, surroundings) as client:
        run = client.runs.remove_repository(owner, name)
        for line in client.runs.log(run, follow=True):
            click.echo(f"[{line.function}] {line.text}" if line.function else line.text)
        ended = client.runs.show(run)
    if ended.state != "succeeded":
        raise StokerError(f"run {run} {ended.state}: {ended.reason}; `stoker runs retry {run}` tries again")


@remote.command("credential", cls=Command, hidden=True)
@click.argument("action")
@click.pass_obj
def credential(surroundings: Surroundings, action: str) -> None:
    """git asks this for user and password (gitcredentials): a description on standard input, the answer on output.

    \b
    stoker remote credential get < description
    """
    if action != "get":
        return
    from stoker_sdk.credentials import local_authorization
    from stoker_sdk.gateway_address import normalize_gateway

    asked = dict(line.split("=", 1) for line in sys.stdin.read().splitlines() if "=" in line)
    gateway = normalize_gateway(f"{asked.get('protocol', '')}://{asked.get('host', '')}")
    stored = surroundings.credentials.find(gateway) or local_authorization(gateway, surroundings.data_dir)
    user, password = _user_and_password(stored, gateway)
    click.echo(f"username={user}\npassword={password}")


def _user_and_password(authorization: str, gateway: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if scheme != "Basic" or not colon:
        raise Unauthorized(f"there is no login for {gateway}: run `stoker login --gateway {gateway}`")
    return user, password


def _helper(surroundings: Surroundings) -> str:
    """How git is to ask: this very command, and where the data folder is, if that was said."""
    found = shutil.which("stoker")
    command = [found] if found else [sys.executable, "-m", "stoker_cli"]
    folder = surroundings.environment.get("STOKER_DATA_DIR")
    setting = f"STOKER_DATA_DIR={shlex.quote(folder)} " if folder else ""
    return f"!{setting}{shlex.join(command)} remote credential"


def _plain(text: str) -> str:
    return _NOT_ALLOWED.sub("-", text.lower()).strip("-") or "me"


def _top() -> Path:
    """The folder of the git repository here."""
    try:
        return Path(_git("rev-parse", "--show-toplevel"))
    except StokerError:
        raise NotFound(f"{Path.cwd()} is in no git repository: make one by `git init -b main`") from None


def _add(name: str, url: str) -> None:
    """The remote, unless it is there already. Raises `Conflict` for another one of that name."""
    if name not in _git("remote").splitlines():
        _git("remote", "add", "--", name, url)
    elif (known := _git("remote", "get-url", "--", name)) != url:
        raise Conflict(
            f"git has a remote {name} already ({known}): remove it (`git remote remove {name}`), or use --name"
        )


def _has_commits() -> bool:
    try:
        return bool(_git("rev-parse", "--verify", "--quiet", "HEAD"))
    except StokerError:
        return False


def _branch() -> str:
    try:
        return _git("symbolic-ref", "--short", "HEAD")
    except StokerError:
        return "main"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StokerError("git is not installed here: install it (Debian: apt install git)") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise StokerError(f"git {arguments[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()
