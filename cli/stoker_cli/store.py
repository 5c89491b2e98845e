"""`stoker store`: functions that others have made, ready to be deployed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.deploy_options import Rollout, rollout_options
from stoker_cli.options import ARCHITECTURES, Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings

_URL = click.option(
    "-u", "--url", default="", metavar="URL|FILE", help="The store. [default: $OPENFAAS_STORE, else the public one]"
)
_PLATFORM = click.option(
    "-p", "--platform", type=click.Choice(ARCHITECTURES), default="x86_64", help="[default: x86_64]"
)


@click.group("store", context_settings={"help_option_names": ["-h", "--help"]})
def store() -> None:
    """Look at the store of functions, and deploy from it. Its functions are images: the platform must run
    containers.

    \b
    stoker store list
    stoker store deploy figlet
    """


@store.command("list", cls=Command)
@_URL
@_PLATFORM
@click.option("-v", "--verbose", is_flag=True, help="Show images and whole descriptions.")
@json_option
@click.pass_obj
def list_store(surroundings: Surroundings, url: str, platform: str, verbose: bool, as_json: bool) -> None:
    """List the functions of the store for a platform.

    \b
    stoker store list
    stoker store list --platform arm64 -v
    """
    from stoker_cli.stores import store_functions

    found = [each for each in store_functions(url, surroundings.environment) if platform in each.architectures]
    if as_json:
        print_json(found)
    elif verbose:
        rows = [(each.name, each.author, each.image_for(platform), each.description) for each in found]
        print_table(("Function", "Author", "Image", "Description"), rows)
    else:
        print_table(("Function", "Description"), [(each.name, each.description[:60]) for each in found])


store.add_command(list_store, "ls")


@store.command("describe", cls=Command)
@click.argument("name")
@_URL
@_PLATFORM
@json_option
@click.pass_obj
def describe(surroundings: Surroundings, name: str, url: str, platform: str, as_json: bool) -> None:
    """Show one function of the store.

    \b
    stoker store describe figlet
    stoker store inspect figlet --json
    """
    from stoker_cli.stores import find_function, store_functions

    found = find_function(store_functions(url, surroundings.environment), name)
    if as_json:
        print_json(found)
        return
    click.echo(f"Title:        {found.title or found.name}")
    click.echo(f"Name:         {found.name}")
    click.echo(f"Author:       {found.author or '<unknown>'}")
    click.echo(f"Description:  {found.description}")
    click.echo(f"Image:        {found.image_for(platform)}")
    click.echo(f"Platforms:    {', '.join(found.architectures)}")
    click.echo(f"Process:      {found.fprocess or '<default>'}")
    click.echo(f"Repository:   {found.repo_url}")
    for title, values in (
        ("Environment", found.environment),
        ("Labels", found.labels),
        ("Annotations", found.annotations),
    ):
        for key, text in (values or {}).items():
            click.echo(f"{title + ':':<14}{key}: {text}")


store.add_command(describe, "inspect")


@store.command("deploy", cls=Command)
@click.argument("entry", metavar="NAME")
@target_options
@rollout_options
@_URL
@_PLATFORM
@click.option("--name", default="", metavar="NAME", help="Another name for the function.")
@click.pass_obj
def deploy(
    surroundings: Surroundings, target: Target, rollout: Rollout, entry: str, url: str, platform: str, name: str
) -> None:
    """Deploy a function of the store.

    \b
    stoker store deploy figlet
    stoker store deploy figlet --name banner --label team=blue -n staging
    """
    from stoker_cli.pipeline import deploy_functions
    from stoker_cli.stores import find_function, store_functions
    from stoker_sdk.stack import Stack

    found = find_function(store_functions(url, surroundings.environment), entry)
    rollout = replace(rollout, overrides=replace(rollout.overrides, namespace=target.namespace))
    function = found.function(name, platform)
    with connected(target, surroundings, timeout=rollout.timeout) as client:
        deploy_functions(client, Stack("", Path()), (function,), rollout, lambda *_: "")
