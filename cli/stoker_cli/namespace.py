"""`stoker namespace`: create, show, change and remove namespaces."""

from __future__ import annotations

from typing import Any

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Function, Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings

_MANY: dict[str, Any] = {"multiple": True, "metavar": "NAME=VALUE"}


def _marks(function: Function) -> Function:
    function = click.option("--annotation", "annotations", **_MANY, help="An annotation; may be repeated.")(function)
    return click.option("-l", "--label", "labels", **_MANY, help="A label; may be repeated.")(function)


@click.group("namespace", context_settings={"help_option_names": ["-h", "--help"]})
def namespace() -> None:
    """Create, show, change and remove namespaces. Functions of the same name may live in several.

    \b
    stoker namespace create staging --label team=blue
    stoker up -n staging
    """


@namespace.command("list", cls=Command)
@target_options
@json_option
@click.pass_obj
def list_namespaces(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    """List the namespaces.

    \b
    stoker namespace list
    stoker namespace list --json
    """
    print_namespaces(surroundings, target, as_json)


namespace.add_command(list_namespaces, "ls")


@namespace.command("create", cls=Command)
@click.argument("name")
@target_options
@_marks
@click.pass_obj
def create(
    surroundings: Surroundings, target: Target, name: str, labels: tuple[str, ...], annotations: tuple[str, ...]
) -> None:
    """Create a namespace.

    \b
    stoker namespace create staging --label team=blue --annotation owner=ada
    """
    from stoker_cli.deploy_options import pairs
    from stoker_sdk.names import check_namespace

    check_namespace(name)
    with connected(target, surroundings) as client:
        client.create_namespace(name, pairs(labels, "--label"), pairs(annotations, "--annotation"))
    click.echo(f"{name}: created")


@namespace.command("update", cls=Command)
@click.argument("name")
@target_options
@_marks
@click.pass_obj
def update(
    surroundings: Surroundings, target: Target, name: str, labels: tuple[str, ...], annotations: tuple[str, ...]
) -> None:
    """Set a namespace's labels and annotations to those given; others that it has go.

    \b
    stoker namespace update staging --label team=green
    """
    from stoker_cli.deploy_options import pairs

    with connected(target, surroundings) as client:
        client.update_namespace(name, pairs(labels, "--label"), pairs(annotations, "--annotation"))
    click.echo(f"{name}: updated")


@namespace.command("get", cls=Command)
@click.argument("name")
@target_options
@json_option
@click.pass_obj
def get(surroundings: Surroundings, target: Target, name: str, as_json: bool) -> None:
    """Show a namespace with its labels and annotations.

    \b
    stoker namespace get staging
    stoker namespace get staging --json
    """
    with connected(target, surroundings) as client:
        found = client.namespace(name)
    if as_json:
        print_json(found)
        return
    click.echo(f"Name:         {found.name}")
    for title, values in (("Labels", found.labels), ("Annotations", found.annotations)):
        first, *rest = [f"{key}: {text}" for key, text in (values or {}).items()] or ["<none>"]
        click.echo(f"{title + ':':<14}{first}")
        for line in rest:
            click.echo(" " * 14 + line)


@namespace.command("remove", cls=Command)
@click.argument("name")
@target_options
@click.pass_obj
def remove(surroundings: Surroundings, target: Target, name: str) -> None:
    """Remove a namespace, with the functions and secrets in it.

    \b
    stoker namespace remove staging
    """
    with connected(target, surroundings) as client:
        client.delete_namespace(name)
    click.echo(f"{name}: removed")


namespace.add_command(remove, "delete")


def print_namespaces(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    with connected(target, surroundings) as client:
        names = sorted(client.namespaces())
    if as_json:
        print_json(names)
    else:
        print_table(("Namespace",), [(name,) for name in names])
