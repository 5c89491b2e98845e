"""`stoker dev`: the functions of a stack on a platform of their own, built and deployed again at each save."""

from __future__ import annotations

from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.options import FILE
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage

_HELP = """Run the functions of a stack on this machine, and take over every save.

A platform of its own is started, the same as `stoker serve`, with the functions of the stack on it: all, or those
named. A saved file is built and deployed at once, without the function's tests; what does not compile, import or start
is told here, and the code before it goes on serving. Handler folders, requirements, the stack file, its environment
files and secrets are watched. What functions print appears here too. Ctrl-C ends it all.

Secrets that a function lists are read from the folder `.secrets` beside the stack file, a file for each.

\b
  stoker dev
  stoker dev greet --port 9000 --test
  stoker dev greet --debug 5678      # attach an editor's Python debugger to 127.0.0.1:5678
"""


@click.command("dev", cls=Command, help=_HELP)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-f",
    "--yaml",
    "stack_file",
    type=FILE,
    metavar="FILE",
    help="The stack file. [default: stack.yaml or stack.yml]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free one.")
@click.option("--test", "tests", is_flag=True, help="Run the functions' tests in each build; a failing one stops it.")
@click.option("--logs/--no-logs", default=True, help="Whether to show what functions print. [default: yes]")
@click.option(
    "--debug",
    "debug_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Start the one function with debugpy, listening on 127.0.0.1:PORT; calls may then last a day.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where the platform keeps its files. [default: a folder for each stack file below the user's caches]",
)
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="JSON with addresses, written after the first round."
)
@click.pass_obj
def dev(
    surroundings: Surroundings,
    names: tuple[str, ...],
    stack_file: Path | None,
    port: int,
    tests: bool,
    logs: bool,
    debug_port: int | None,
    data_dir: Path | None,
    ready_file: Path | None,
) -> int:
    from stoker_cli.connection import default_stack_file
    from stoker_cli.development.run import Options, run

    path = stack_file or default_stack_file(Path())
    if path is None:
        raise BadUsage(
            "there is no stack.yml in this folder: name one with -f, or start one with `stoker new NAME --lang python3`"
        )
    options = Options(path, names, port, tests, logs, debug_port or 0, data_dir, ready_file)
    return run(options, surroundings)
