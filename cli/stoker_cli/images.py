"""Images of a stack: what is ordered of their builders, and the names that they get (contract section 9.5)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from stoker_builder.images.builder import Order
from stoker_builder.images.buildkit import BuildKitBuilder, Daemon
from stoker_builder.images.context import BUILD_FOLDER, prepare_context
from stoker_builder.images.docker import DockerBuilder, check_can_be_pushed, docker_options
from stoker_builder.images.docker_client import find_buildx
from stoker_builder.images.dockerfile import TEST_STAGE, leaves_out_tests
from stoker_builder.images.kinds import BUILDKIT
from stoker_builder.request import image_request
from stoker_cli.build_flags import BuildFlags
from stoker_cli.progress import Progress
from stoker_sdk.deployment import tagged
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.paths import inside
from stoker_sdk.programs import find_program, follow, output_of
from stoker_sdk.stack import Stack, StackFunction

_BUILDER = "multiarch"
_NO_TAG_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")


def image_name(stack: Stack, function: StackFunction, tag: str, environment: Mapping[str, str]) -> str:
    """The image to build, push or deploy, with the suffix that `--tag` asks for. Raises `BadInput`, `StokerError`."""
    part = stack.part_of(function)
    if not function.image:
        raise BadInput(f"{part.file}: functions.{function.name}.image: is missing: an image needs a name")
    if function.image.startswith("-") or any(character.isspace() for character in function.image):
        raise BadInput(f"{part.file}: functions.{function.name}.image: {function.image[:80]!r} is no image's name")
    image = tagged(function.image)
    if tag in ("latest", "default", "") or "@" in image:
        return image
    if tag == "digest":
        return f"{image.rpartition(':')[0]}:{folder_digest(stack.handler_folder(function))}"
    return f"{image}-{_NO_TAG_CHARACTER.sub('-', _git_suffix(tag, part.folder, environment))}"[:300]


def folder_digest(folder: Path) -> str:
    """The MD5 of a folder's files, names and contents: it tells versions apart and guards nothing."""
    digest = hashlib.md5(usedforsecurity=False)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()


def image_order(stack: Stack, function: StackFunction, flags: BuildFlags, environment: Mapping[str, str]) -> Order:
    """What is asked for with these flags. Raises `BadInput`, `NotFound`."""
    return Order(
        image_request(stack, function, flags.arguments, flags.options),
        image=image_name(stack, function, flags.tag, environment),
        context=stack.part_of(function).folder / BUILD_FOLDER / function.name,
        secrets=_secrets(stack, function),
        labels=flags.labels,
        platform=flags.platform,
        cache=flags.cache,
        no_cache=flags.no_cache,
        pull=flags.pull,
        squash=flags.squash,
    )


def image_builder(flags: BuildFlags, environment: Mapping[str, str]) -> DockerBuilder | BuildKitBuilder:
    """The one that makes images here."""
    if flags.builder == BUILDKIT:
        address = flags.buildkit or environment.get("BUILDKIT_HOST", "")
        if not address:
            raise BadInput("--builder buildkit needs a buildkitd: give --buildkit ADDRESS, or set BUILDKIT_HOST")
        return BuildKitBuilder(Daemon(address, flags.buildkit_tls, flags.plain_registries), environment)
    return DockerBuilder(environment)


def push_image(
    stack: Stack, function: StackFunction, flags: BuildFlags, environment: Mapping[str, str], progress: Progress
) -> str:
    """Push what was built, and return the image with the digest that the registry has it under. A buildkitd has its
    steps, and goes through them again.
    """
    builder = image_builder(flags, environment)
    if not function.is_built_here and isinstance(builder, BuildKitBuilder):
        raise BadInput("a buildkitd pushes what it builds, and nothing is built here: use --builder docker")
    if isinstance(builder, DockerBuilder):
        return builder.push(image_name(stack, function, flags.tag, environment), progress)
    return builder.build(image_order(stack, function, flags, environment), progress, push=True).image


def publish_image(
    stack: Stack,
    function: StackFunction,
    flags: BuildFlags,
    platforms: str,
    extra_tags: tuple[str, ...],
    environment: Mapping[str, str],
    progress: Progress,
) -> str:
    """Build for several platforms with buildx and push in one go; returns the image's name."""
    client = find_buildx(environment)
    order = image_order(stack, function, flags, environment)
    check_can_be_pushed(order.image)
    context, dockerfile = prepare_context(order)
    progress.step(f"publishing for {platforms}")
    _ensure_builder(client.program, environment, progress)
    names = [order.image, *(f"{order.image.rpartition(':')[0]}:{extra}" for extra in extra_tags)]
    command = [client.program, "buildx", "build", f"--builder={_BUILDER}", "--progress=plain"]
    command += [f"--platform={platforms}", *docker_options(order, environment)]
    builder = DockerBuilder(environment)
    if leaves_out_tests(dockerfile):
        builder.follow(client, [*command, f"--target={TEST_STAGE}", "."], context, progress)
    command += ["--output=type=registry,push=true", *(f"--tag={name}" for name in names)]
    builder.follow(client, [*command, "."], context, progress)
    return order.image


def _secrets(stack: Stack, function: StackFunction) -> dict[str, Path]:
    part = stack.part_of(function)
    found: dict[str, Path] = {}
    for name, file in function.build_secrets.items():
        what = f"{part.file}: functions.{function.name}.build_secrets.{name}"
        found[name] = inside(part.folder, file, what)
        if not found[name].is_file():
            raise BadInput(f"{what}: there is no file {file!r} beside the stack file")
    return found


def _ensure_builder(docker: str, environment: Mapping[str, str], progress: Progress) -> None:
    try:
        output_of([docker, "buildx", "inspect", _BUILDER], environment)
    except StokerError:
        command = [docker, "buildx", "create", f"--name={_BUILDER}", f"--node={_BUILDER}"]
        follow(command, progress.log, environment)


def _git_suffix(tag: str, folder: Path, environment: Mapping[str, str]) -> str:
    git = find_program("git", f"--tag {tag} asks it for the version", environment)

    def asked(*arguments: str) -> str:
        try:
            return output_of([git, *arguments], environment, folder)
        except StokerError as error:
            raise StokerError(f"--tag {tag} cannot be made: {error}") from None

    if tag == "describe":
        return asked("describe", "--tags", "--always")
    sha = asked("rev-parse", "--short", "HEAD")
    return sha if tag == "sha" else f"{asked('rev-parse', '--abbrev-ref', 'HEAD')}-{sha}"
