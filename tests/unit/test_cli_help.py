"""Every command of every group has a help text with an example, and no flag that means two things."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from stoker_cli.main import COMMANDS, stoker

HEAVY = ("serve", "pipeline", "dev")
"""Commands whose modules may import more."""


def every_command() -> Iterator[tuple[str, click.Command]]:
    root = click.Context(stoker, info_name="stoker")
    for name in COMMANDS:
        command = stoker.get_command(root, name)
        assert command is not None
        yield from _with_children(f"stoker {name}", command)


def _with_children(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for child in {id(each): each for each in command.commands.values()}.values():
            yield from _with_children(f"{path} {child.name}", child)


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=each[0]) for each in every_command()])
def test_every_command_has_help_an_example_and_flags_of_one_meaning(path: str, command: click.Command) -> None:
    assert command.help and f"\n    {path}" in f"\n    {command.help}".replace("\n  stoker", "\n    stoker")
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    doubled = {flag for flag in flags if flag.startswith("-") and flags.count(flag) > 1}
    assert doubled == set()


def test_no_module_of_a_command_imports_what_only_its_work_needs() -> None:
    """Help and completion import the modules of commands, and must not wait for a client, a parser or a bar."""
    modules = sorted({module for name, (module, _) in COMMANDS.items() if name not in HEAVY})
    script = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    script += "print([name for name in ('urllib3', 'yaml', 'rich', 'msgspec', 'watchfiles') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
