"""`stoker completion`: the script with which a shell completes commands and flags."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_sdk.errors import BadUsage

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("name", required=False, type=click.Choice(SHELLS), metavar="[bash|zsh|fish]")
@click.option("--shell", type=click.Choice(SHELLS), help="The shell; the same as the argument.")
def completion(name: str | None, shell: str | None) -> None:
    """Print the script that makes a shell complete stoker's commands and flags.

    \b
    stoker completion bash > ~/.local/share/bash-completion/completions/stoker
    source <(stoker completion zsh)
    stoker completion fish > ~/.config/fish/completions/stoker.fish
    """
    from click.shell_completion import get_completion_class

    from stoker_cli.main import COMPLETE_VARIABLE, stoker

    chosen = name or shell
    if chosen is None:
        raise BadUsage(f"which shell? Name one of {', '.join(SHELLS)}")
    kind = get_completion_class(chosen)
    assert kind is not None
    maker = kind(stoker, {}, "stoker", COMPLETE_VARIABLE)
    click.echo(maker.source_template % maker.source_vars())
