"""`stoker list`: the functions of a namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings

if TYPE_CHECKING:
    from stoker_sdk.function import FunctionStatus

SORTS = ("name", "invocations", "creation")


@click.command("list", cls=Command)
@target_options
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show images, states and creation times too.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--sort", type=click.Choice(SORTS), default="name", help="The order. [default: name]")
@click.pass_obj
def list_functions(
    surroundings: Surroundings, target: Target, as_json: bool, verbose: bool, quiet: bool, sort: str
) -> None:
    """List the functions of a namespace.

    \b
    stoker list
    stoker list --sort invocations -v
    stoker list --json
    """
    with connected(target, surroundings) as client:
        functions = in_order(client.functions(target.namespace), sort)
    if as_json:
        print_json(functions)
    elif quiet:
        click.echo("".join(f"{function.name}\n" for function in functions), nl=False)
    elif verbose:
        _print(("Function", "Image", "Invocations", "Replicas", "State", "CreatedAt"), _wide, functions)
    else:
        _print(("Function", "Invocations", "Replicas"), _narrow, functions)


def _print(
    titles: tuple[str, ...], row: Callable[[FunctionStatus], tuple[str, ...]], functions: list[FunctionStatus]
) -> None:
    """With the public URLs, where there are any."""
    urls = [_url(function) for function in functions]
    if any(urls):
        print_table((*titles, "URL"), [(*row(function), url) for function, url in zip(functions, urls, strict=True)])
    else:
        print_table(titles, list(map(row, functions)))


def _url(function: FunctionStatus) -> str:
    return function.stoker.urls[0] if function.stoker and function.stoker.urls else ""


def in_order(functions: list[FunctionStatus], sort: str) -> list[FunctionStatus]:
    """By name, the most called first, or the newest first."""
    if sort == "creation":
        by_name = sorted(functions, key=lambda function: function.name)
        return sorted(by_name, key=lambda function: function.created_at, reverse=True)
    if sort == "invocations":
        return sorted(functions, key=lambda function: (-function.invocation_count, function.name))
    return sorted(functions, key=lambda function: function.name)


def _narrow(function: FunctionStatus) -> tuple[str, ...]:
    return function.name, f"{function.invocation_count:.0f}", str(function.replicas)


def _wide(function: FunctionStatus) -> tuple[str, ...]:
    state = function.stoker.state if function.stoker else ("ready" if function.available_replicas else "not ready")
    name, invocations, replicas = _narrow(function)
    return name, function.image, invocations, replicas, state, function.created_at
