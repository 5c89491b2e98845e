"""The command `stoker`: which commands there are, and how a failure reaches the person.

Each command's module is imported when it is called, because `stoker version` must not wait for what `up`
needs. No traceback leaves this module: an error of ours is its message, anything else is one line that says
how to see more.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import StokerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "serve": ("stoker_cli.serve", "Run the platform on this machine."),
    "pipeline": ("stoker_cli.serve_pipeline", "Run the pipeline of git pushes by itself, for gateways elsewhere."),
    "new": ("stoker_cli.new", "Start a function from a template."),
    "up": ("stoker_cli.up", "Build and deploy every function of a stack, and wait until they are ready."),
    "dev": ("stoker_cli.dev", "Run a stack's functions here, each save at once."),
    "build": ("stoker_cli.build", "Build the functions of a stack."),
    "push": ("stoker_cli.push", "Push the images of a stack to their registry."),
    "publish": ("stoker_cli.publish", "Build images for several platforms and push them."),
    "deploy": ("stoker_cli.deploy", "Deploy the functions of a stack, or one image."),
    "diff": ("stoker_cli.diff", "Compare what is deployed with what the stack says."),
    "generate": ("stoker_cli.generate", "Print the functions of a stack as Kubernetes resources."),
    "local-run": ("stoker_cli.local_run", "Run a function in a container here, without a gateway."),
    "list": ("stoker_cli.list_functions", "List the functions."),
    "describe": ("stoker_cli.describe", "Show one function: its state, settings and replicas."),
    "invoke": ("stoker_cli.invoke", "Call a function with standard input."),
    "calls": ("stoker_cli.calls", "Show, cancel and replay async calls."),
    "logs": ("stoker_cli.logs", "Show what a function printed."),
    "ready": ("stoker_cli.ready", "Wait until the gateway, or a function, can be called."),
    "scale": ("stoker_cli.scale", "Set a function's number of replicas."),
    "remote": ("stoker_cli.remote", "Connect a git repository, so that a push deploys it."),
    "github": ("stoker_cli.github", "Connect GitHub, so that pushes there deploy."),
    "runs": ("stoker_cli.runs", "Show, follow, retry and cancel what pushes started."),
    "owners": ("stoker_cli.owners", "Show and release the names of owners who push."),
    "revisions": ("stoker_cli.revisions", "List what was deployed of a function before."),
    "rollback": ("stoker_cli.rollback", "Put an earlier revision of a function live again."),
    "remove": ("stoker_cli.remove", "Remove functions."),
    "secret": ("stoker_cli.secret", "Create, list, update and remove secrets."),
    "namespace": ("stoker_cli.namespace", "Create, show, change and remove namespaces."),
    "namespaces": ("stoker_cli.namespaces", "List the namespaces."),
    "store": ("stoker_cli.store", "Look at the store of functions, and deploy from it."),
    "template": ("stoker_cli.template", "Show and fetch the templates that functions start from."),
    "login": ("stoker_cli.login", "Store the credentials for a gateway."),
    "logout": ("stoker_cli.logout", "Forget the credentials for a gateway."),
    "registry-login": ("stoker_cli.registry_login", "Write a file with a registry's credentials."),
    "completion": ("stoker_cli.completion", "Print the script with which a shell completes commands."),
    "version": ("stoker_cli.version", "Show the versions of this command and of the gateway."),
}
"""Module and short help by name. The command object in the module is named like the command, unless listed
below.
"""

ALIASES = {"ls": "list", "rm": "remove", "delete": "remove"}
COMPLETE_VARIABLE = "_STOKER_COMPLETE"
"""Set by a shell that asks for completions, with what it wants."""

_ATTRIBUTES = {"list": "list_functions"}

_HELP = """Functions whose processes stay warm, on this machine or on a cluster.

\b
  stoker serve                        run the platform on this machine
  stoker new greet --lang python3     start a function
  stoker up                           build it, deploy it, wait until it answers
  echo hello | stoker invoke greet

Commands and flags have the names that faas-cli gives them. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


class _Commands(click.Group):
    """The commands by name, imported only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[name][0])
        command: click.Command = getattr(module, _ATTRIBUTES.get(name, name.replace("-", "_")))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if ALIASES.get(name, name) not in COMMANDS and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}{_nearest(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def stoker() -> None:
    """The root of all commands."""


def main() -> None:
    """The console script: runs the command line and leaves the process with its exit code."""
    sys.exit(run(sys.argv[1:], Surroundings.of_process()))


def run(arguments: list[str], surroundings: Surroundings) -> int:
    """Run one command line and return its exit code. Messages go to standard error."""
    try:
        code = _outcome(arguments, surroundings)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_standard_output()
        return 1


def _outcome(arguments: list[str], surroundings: Surroundings) -> int:
    try:
        result = stoker.main(
            arguments, prog_name="stoker", complete_var=COMPLETE_VARIABLE, standalone_mode=False, obj=surroundings
        )
        return result if isinstance(result, int) else 0
    except StokerError as error:
        click.echo(f"stoker: {error}", err=True)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(_click_message(error), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # the edge: what comes here is a bug of ours
        if surroundings.environment.get("STOKER_DEBUG"):
            raise
        kind = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        click.echo(f"stoker: internal error: {kind}; set STOKER_DEBUG=1 for the traceback", err=True)
        return 1


def _silence_standard_output() -> None:
    """Without this the interpreter complains at its exit that it cannot flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _click_message(error: click.ClickException) -> str:
    """One line of what is wrong, one of where to read more."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "stoker"
    hint = f"\nTry `{path} --help`" if context else ""
    return f"{path}: {error.format_message()}{hint}"


def _nearest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
    return f"; did you mean {close[0]!r}?" if close else "; `stoker --help` lists them"
