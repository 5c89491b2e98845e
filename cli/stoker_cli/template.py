"""`stoker template`: the templates that functions start from, and where more of them come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.options import Target, json_option, stack_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings

if TYPE_CHECKING:
    from stoker_cli.git_templates import Source

PROJECT_TEMPLATES = Path("template")
"""Own templates of a project, in the contract's layout (section 9.4), win over those built in."""

_HELP = {"help_option_names": ["-h", "--help"]}
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace templates of the same name in ./template.")
_STORE = click.option(
    "-u",
    "--url",
    default="",
    metavar="URL|FILE",
    help="The store. [default: $OPENFAAS_TEMPLATE_STORE_URL, else public]",
)


@click.group("template", context_settings=_HELP)
def template() -> None:
    """Show and fetch the templates that functions start from: those in ./template first, then those built in.

    \b
    stoker template list
    stoker template pull https://github.com/openfaas/templates.git
    """


@template.command("list", cls=Command)
@json_option
def list_templates(as_json: bool) -> None:
    """List the templates.

    \b
    stoker template list
    stoker template list --json
    """
    from stoker_builder.templates import list_templates as known

    templates = known(PROJECT_TEMPLATES)
    if as_json:
        print_json(
            [{"name": each.name, "language": each.language, "aliases": list(each.aliases)} for each in templates]
        )
    else:
        rows = [(each.name, each.language, ", ".join(each.aliases)) for each in templates]
        print_table(("Name", "Language", "Aliases"), rows)


@template.command("pull", cls=Command)
@click.argument("source", required=False, metavar="[URL[#REF]|stack]")
@stack_options
@_OVERWRITE
@click.pass_obj
def pull(surroundings: Surroundings, target: Target, source: str | None, overwrite: bool) -> None:
    """Fetch a git repository's templates into ./template. REF is a branch, a tag, or sha-HEX. With `stack`, fetch
    those that the stack names under configuration.templates.

    Without an address it is $OPENFAAS_TEMPLATE_URL, else OpenFaaS's own repository. Templates that are here
    already stay, unless --overwrite is given.

    \b
    stoker template pull
    stoker template pull https://github.com/openfaas/templates.git#1.0.0
    stoker template pull stack --overwrite
    """
    from stoker_cli.git_templates import parse_source
    from stoker_cli.stores import TEMPLATE_REPOSITORY

    if source == "stack":
        _pull_stack(surroundings, target, overwrite)
        return
    address = source or surroundings.environment.get("OPENFAAS_TEMPLATE_URL") or TEMPLATE_REPOSITORY
    _pull(surroundings, parse_source(address), PROJECT_TEMPLATES, overwrite)


def _pull_stack(surroundings: Surroundings, target: Target, overwrite: bool) -> None:
    from stoker_cli.connection import required_stack
    from stoker_cli.options import Selection
    from stoker_cli.stack_templates import pull_templates

    stack = required_stack(target, surroundings, Selection())
    if not stack.templates:
        click.echo(f"{stack.file} names no templates under configuration.templates")
        return
    pull_templates(stack, surroundings.environment, lambda line: click.echo(line), overwrite=overwrite)


def _pull(surroundings: Surroundings, source: Source, folder: Path, overwrite: bool, only: str = "") -> None:
    from stoker_cli.git_templates import pull as fetched
    from stoker_cli.stack_templates import pulled_lines

    written, kept = fetched(source, folder, surroundings.environment, overwrite=overwrite, only=only)
    for line in pulled_lines(written, kept, source):
        click.echo(line)


@template.group("store", context_settings=_HELP)
def store() -> None:
    """Look at the store of templates, and fetch from it.

    \b
    stoker template store list
    stoker template store pull node20
    """


@store.command("list", cls=Command)
@_STORE
@click.option("-p", "--platform", default="", metavar="NAME", help="Only for this platform, such as x86_64.")
@click.option("-r", "--recommended", is_flag=True, help="Only those that are recommended.")
@click.option("-o", "--official", is_flag=True, help="Only those of OpenFaaS.")
@click.option("-v", "--verbose", is_flag=True, help="Show languages, platforms and descriptions too.")
@json_option
@click.pass_obj
def store_list(
    surroundings: Surroundings,
    url: str,
    platform: str,
    recommended: bool,
    official: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """List the templates of the store.

    \b
    stoker template store list
    stoker template store list --platform arm64 --recommended
    """
    from stoker_cli.stores import store_templates

    found = [
        each
        for each in store_templates(url, surroundings.environment)
        if (not platform or each.platform.lower() == platform.lower())
        and (not recommended or each.recommended)
        and (not official or each.official == "true")
    ]
    if as_json:
        print_json(found)
    elif verbose:
        header = ("Name", "Language", "Platform", "Source", "Description")
        rows = [(each.template, each.language, each.platform, each.source, each.description) for each in found]
        print_table(header, rows)
    else:
        print_table(("Name", "Source", "Description"), [(e.template, e.source, e.description) for e in found])


store.add_command(store_list, "ls")


@store.command("describe", cls=Command)
@click.argument("name")
@_STORE
@json_option
@click.pass_obj
def describe(surroundings: Surroundings, name: str, url: str, as_json: bool) -> None:
    """Show one template of the store.

    \b
    stoker template store describe node20
    """
    from stoker_cli.stores import find_store_template, store_templates

    found = find_store_template(store_templates(url, surroundings.environment), name)
    if as_json:
        print_json(found)
        return
    for label, text in (
        ("Name", found.template),
        ("Description", found.description),
        ("Language", found.language),
        ("Platform", found.platform),
        ("Source", found.source),
        ("Repository", found.repo),
        ("Official", found.official),
        ("Recommended", str(found.recommended).lower()),
    ):
        click.echo(f"{label + ':':<14}{text}")


@store.command("pull", cls=Command)
@click.argument("name")
@_STORE
@_OVERWRITE
@click.pass_obj
def store_pull(surroundings: Surroundings, name: str, url: str, overwrite: bool) -> None:
    """Fetch a template of the store into ./template. NAME@REF fetches that branch or tag.

    \b
    stoker template store pull node20
    stoker template store pull golang-middleware@1.1.0
    """
    from stoker_cli.git_templates import parse_source
    from stoker_cli.stores import find_store_template, store_templates

    base, at, ref = name.partition("@")
    found = find_store_template(store_templates(url, surroundings.environment), base)
    source = parse_source(f"{found.repo}#{ref}" if at else found.repo)
    _pull(surroundings, source, PROJECT_TEMPLATES, overwrite, found.template + (f"@{ref}" if at else ""))
