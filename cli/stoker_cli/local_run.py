"""`stoker local-run`: one function of a stack in a container on this machine, without a gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_builder.images.kinds import DOCKER, LOCAL
from stoker_cli.build_flags import BuildFlags, build_flags
from stoker_cli.command import Command
from stoker_cli.connection import required_stack
from stoker_cli.options import Selection, Target, stack_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadInput, BadUsage
from stoker_sdk.units import parse_quantity

if TYPE_CHECKING:
    from stoker_sdk.stack import Stack, StackFunction

SECRETS = Path(".secrets")
_LEAST_MEMORY = 6 << 20


@click.command("local-run", cls=Command)
@click.argument("name", required=False)
@stack_options
@build_flags
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=8080, metavar="PORT", help="[default: 8080]")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="An environment variable; may be repeated.")
@click.option("--network", default="", metavar="NAME", help="Docker's network; with `host`, --port counts for nothing.")
@click.option("--build/--no-build", default=True, help="Whether to build the image first. [default: yes]")
@click.option("--docker", is_flag=True, help="Build an image also of what the gateway could build.")
@click.option("--print", "prints", is_flag=True, help="Only print the command.")
@click.pass_obj
def local_run(
    surroundings: Surroundings,
    target: Target,
    name: str | None,
    flags: BuildFlags,
    port: int,
    env: tuple[str, ...],
    network: str,
    build: bool,
    docker: bool,
    prints: bool,
) -> int:
    """Run a function of the stack in a container here, at http://127.0.0.1:8080, until Ctrl-C. Its secrets are the
    files of the folder .secrets. Of its limits, memory and CPU hold.

    A function that needs no container is quicker with `stoker dev NAME`.

    \b
    stoker local-run greet
    stoker local-run greet --port 3001 --env LEVEL=debug --print
    """
    import shlex
    from dataclasses import replace

    from stoker_cli.deploy_options import pairs
    from stoker_sdk.programs import find_program
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, Selection())
    functions = select(stack.functions, name or "")
    if len(functions) > 1:
        raise BadUsage(f"the stack has {len(functions)} functions: say which one to run")
    function = functions[0]
    flags = replace(flags, builder=DOCKER if docker else LOCAL)
    image = _image(stack, function, flags, surroundings, builds=build and not prints)
    command = docker_command(function, image, port, network, pairs(env, "--env"), _secrets(function, stack))
    if prints:
        click.echo(shlex.join(["docker", *command]))
        return 0
    program = find_program("docker", "local-run runs a container with it", surroundings.environment)
    click.echo(f"{function.name}: http://127.0.0.1:{port}" if network != "host" else function.name, err=True)
    return os.spawnve(os.P_WAIT, program, ["docker", *command], dict(surroundings.environment))


def docker_command(
    function: StackFunction, image: str, port: int, network: str, environment: dict[str, str], secrets: Path | None
) -> list[str]:
    """The arguments of docker (contract section 9.6)."""
    variables = {"OPENFAAS_NAME": function.name, "OPENFAAS_NAMESPACE": function.namespace or "openfaas-fn"}
    variables |= {"jwt_auth_local": "true", **({"fprocess": function.fprocess} if function.fprocess else {})}
    variables |= {**function.environment, **environment}
    command = ["run", f"--name={function.name}", "--rm", "-i"]
    command += ["--network=host"] if network == "host" else [f"--publish={port}:8080"]
    command += [f"--network={network}"] if network not in ("", "host") else []
    command += [f"--env={key}={text}" for key, text in variables.items()]
    command += [f"--volume={secrets}:/var/openfaas/secrets:ro"] if secrets else []
    command += ["--read-only"] if function.readonly_root_filesystem else []
    return [*command, *_limits(function), image]


def _limits(function: StackFunction) -> list[str]:
    limits = function.limits
    flags = []
    if limits and limits.memory:
        flags.append(f"--memory-reservation={max(_LEAST_MEMORY, int(parse_quantity(limits.memory)))}b")
    if limits and limits.cpu:
        flags.append(f"--cpus={float(parse_quantity(limits.cpu)):g}")
    return flags


def _image(
    stack: Stack, function: StackFunction, flags: BuildFlags, surroundings: Surroundings, *, builds: bool
) -> str:
    from stoker_cli.builds import is_image
    from stoker_cli.images import image_builder, image_name, image_order
    from stoker_cli.pipeline import named, prepare
    from stoker_cli.progress import progress_of

    if function.is_built_here and not is_image(stack, function, flags):
        raise BadInput(
            f"function {function.name!r} needs no container: run it with `stoker dev {function.name}`, "
            "or give --docker to try its image"
        )
    with named(function.name):
        if not (builds and function.is_built_here):
            return image_name(stack, function, flags.tag, surroundings.environment)
        prepare(stack, (function,), flags, surroundings.environment)
        with progress_of(function.name, 1, flags.quiet) as progress:
            order = image_order(stack, function, flags, surroundings.environment)
            return image_builder(flags, surroundings.environment).build(order, progress).image


def _secrets(function: StackFunction, stack: Stack) -> Path | None:
    if not function.secrets:
        return None
    folder = (stack.part_of(function).folder / SECRETS).resolve()
    for name in function.secrets:
        if not (folder / name).is_file():
            raise BadInput(
                f"function {function.name!r}: secret {name!r} is missing: put its value into {SECRETS / name}"
            )
    if ":" in str(folder):
        raise BadInput(f"the folder {folder} cannot be given to docker: its path has a ':' in it")
    return folder
