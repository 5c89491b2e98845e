"""`stoker template`: the templates that functions start from."""

from __future__ import annotations

from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.options import json_option
from stoker_cli.output import print_json, print_table

PROJECT_TEMPLATES = Path("template")
"""Own templates of a project, in the contract's layout (section 9.4), win over those built in."""


@click.group("template", context_settings={"help_option_names": ["-h", "--help"]})
def template() -> None:
    """Show the templates that functions start from: those in ./template first, then those built in.

    \b
    stoker template list
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
