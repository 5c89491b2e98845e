"""Images by the Docker Engine's BuildKit: build and push (contract section 9.5).

A stage `test` of the Dockerfile is always run, also where nothing needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker_builder.images.builder import Built, Order, Run, arguments_of
from stoker_builder.images.context import prepare_context
from stoker_builder.images.docker_client import REASON, Client, find_client
from stoker_builder.images.docker_log import BuildLog
from stoker_builder.images.dockerfile import TEST_STAGE, leaves_out_tests
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.programs import find_program, follow
from stoker_sdk.rollout import Progress

_LAYER: Final = re.compile(r"[0-9a-f]{12}: ")
"""How a line of `docker push` about one layer begins."""
_DIGEST: Final = re.compile(r"\bdigest: (sha256:[0-9a-f]{64})\b")


class DockerBuilder:
    """`environment` names the Engine and the logins, as docker reads them."""

    def __init__(self, environment: Mapping[str, str], run: Run = follow) -> None:
        self._environment = environment
        self._run = run

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        """As `ImageBuilder.build`. The image stays in the Engine's own store."""
        client = find_client(self._environment)
        context, dockerfile = prepare_context(order)
        options = docker_options(order, self._environment)
        if leaves_out_tests(dockerfile):
            progress.step("testing with docker")
            self.follow(client, [*client.build(), *options, f"--target={TEST_STAGE}", "."], context, progress)
        progress.step("building with docker")
        self.follow(client, [*client.build(), *options, "--tag", order.image, "."], context, progress)
        return Built(self.push(order.image, progress) if push else order.image)

    def push(self, image: str, progress: Progress) -> str:
        """Push what was built, and return it with the digest that the registry has it under. Raises `BadInput`."""
        check_can_be_pushed(image)
        docker = find_program("docker", REASON, self._environment)
        progress.step(f"pushing {image}")
        digests: list[str] = []

        def log(line: str) -> None:
            digests.extend(_DIGEST.findall(line))
            if not _LAYER.match(line):
                progress.log(line)

        self._run([docker, "push", image], log, self._environment)
        if not digests:
            raise StokerError(
                f"docker has pushed {image} and named no digest: nobody can say what lies in the registry"
            )
        return f"{image}@{digests[-1]}"

    def follow(self, client: Client, command: Sequence[str], context: Path, progress: Progress) -> None:
        """Run one of its builds. Raises `FailedTests`, or `StokerError` with the last lines of the step that failed."""
        build = BuildLog()

        def log(line: str) -> None:
            for shown in build.lines(line):
                progress.log(shown)

        try:
            self._run(command, log, client.environment(self._environment), context)
        except StokerError as error:
            raise (build.failure() or error) from None


def docker_options(order: Order, environment: Mapping[str, str]) -> list[str]:
    """The flags of `docker build` that the order asks for. Raises `BadInput`."""
    options = [flag for flag in ("squash", "no_cache", "pull") if getattr(order, flag)]
    parts = [f"--{flag.replace('_', '-')}" for flag in options]
    parts += [f"--platform={order.platform}"] if order.platform else []
    parts += [part for key, text in sorted(order.labels.items()) for part in ("--label", f"{key}={text}")]
    given = arguments_of(order, environment)
    parts += [part for key, text in given.items() for part in ("--build-arg", f"{key}={text}")]
    return parts + secret_flags(order)


def secret_flags(order: Order) -> list[str]:
    """`--secret id=…,src=…` for each, which docker and buildctl write alike. Raises `BadInput`."""
    parts: list[str] = []
    for name, path in sorted(order.secrets.items()):
        if not path.is_file() or "," in f"{name}{path}":
            raise BadInput(f"build secret {name!r}: there is no file {path.name!r} that can be given")
        parts += ["--secret", f"id={name},src={path.absolute()}"]
    return parts


def check_can_be_pushed(image: str) -> None:
    """Raises `BadInput` for a name without a registry or owner: it would go to the world's library images."""
    if "/" not in image:
        raise BadInput(f"image {image!r} cannot be pushed: put the registry or the owner in front, such as me/{image}")
