"""Images by Docker: build, push and publish (contract section 9.5), and the names that they get.

They are built by BuildKit. A stage `test` of the Dockerfile is always run, also where nothing needs it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from stoker_builder.request import build_arguments, template_of
from stoker_cli.build_context import write_context
from stoker_cli.build_flags import BuildFlags
from stoker_cli.docker.build_log import BuildLog
from stoker_cli.docker.client import REASON, Client, find_buildx, find_client
from stoker_cli.docker.dockerfile import TEST_STAGE, leaves_out_tests
from stoker_cli.programs import find_program, follow, output_of
from stoker_cli.progress import Progress
from stoker_sdk.deployment import tagged
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.paths import inside
from stoker_sdk.stack import Stack, StackFunction

_BUILDER = "multiarch"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_DIGEST = re.compile(r"\bdigest: (sha256:[0-9a-f]{64})\b")
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


def build_image(
    stack: Stack, function: StackFunction, flags: BuildFlags, environment: Mapping[str, str], progress: Progress
) -> str:
    """Write the context, build it, and return the image's name. Raises `FailedTests`, and `StokerError` with the
    last lines of the step that failed.
    """
    client = find_client(environment)
    image, context = _prepared(stack, function, flags, environment)
    options = [
        *(["--squash"] if flags.squash else []),
        *([f"--platform={flags.platform}"] if flags.platform else []),
        *_flagged(flags),
        *_arguments(stack, function, flags, environment),
        *_secrets(stack, function),
    ]
    if leaves_out_tests(_dockerfile(context)):
        progress.step("testing with docker")
        _build(client, [*client.build(), *options, f"--target={TEST_STAGE}", "."], environment, progress, context)
    progress.step("building with docker")
    _build(client, [*client.build(), *options, "--tag", image, "."], environment, progress, context)
    return image


def push_image(image: str, environment: Mapping[str, str], progress: Progress) -> str:
    """Push, and return the image with the digest that the registry has it under.

    Raises `BadInput` for a name without a registry or owner: it would go to the world's library images.
    """
    if "/" not in image:
        raise BadInput(f"image {image!r} cannot be pushed: put the registry or the owner in front, such as me/{image}")
    docker = find_program("docker", REASON, environment)
    progress.step(f"pushing {image}")
    digests: list[str] = []

    def log(line: str) -> None:
        digests.extend(_DIGEST.findall(line))
        progress.log(line)

    follow([docker, "push", image], log, environment)
    if not digests:
        raise StokerError(f"docker has pushed {image} and named no digest: nobody can say what lies in the registry")
    return f"{image}@{digests[-1]}"


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
    image, context = _prepared(stack, function, flags, environment)
    if "/" not in image:
        raise BadInput(f"image {image!r} cannot be published: put the registry or the owner in front")
    progress.step(f"publishing for {platforms}")
    _ensure_builder(client.program, environment, progress)
    names = [image, *(f"{image.rpartition(':')[0]}:{extra}" for extra in extra_tags)]
    command = [client.program, "buildx", "build", f"--builder={_BUILDER}", "--progress=plain"]
    command += [f"--platform={platforms}", *_flagged(flags)]
    command += [*_arguments(stack, function, flags, environment), *_secrets(stack, function)]
    if leaves_out_tests(_dockerfile(context)):
        _build(client, [*command, f"--target={TEST_STAGE}", "."], environment, progress, context)
    command += ["--output=type=registry,push=true", *(f"--tag={name}" for name in names)]
    _build(client, [*command, "."], environment, progress, context)
    return image


def _build(
    client: Client, command: list[str], environment: Mapping[str, str], progress: Progress, context: Path
) -> None:
    build = BuildLog()

    def log(line: str) -> None:
        for shown in build.lines(line):
            progress.log(shown)

    try:
        follow(command, log, client.environment(environment), context)
    except StokerError as error:
        raise (build.failure() or error) from None


def _dockerfile(context: Path) -> str:
    try:
        return (context / "Dockerfile").read_text(errors="replace")
    except FileNotFoundError:
        return ""  # docker says so better


def _prepared(
    stack: Stack, function: StackFunction, flags: BuildFlags, environment: Mapping[str, str]
) -> tuple[str, Path]:
    image = image_name(stack, function, flags.tag, environment)
    return image, write_context(stack, function, template_of(stack, function))


def _flagged(flags: BuildFlags) -> list[str]:
    chosen = (["--no-cache"] if flags.no_cache else []) + (["--pull"] if flags.pull else [])
    return chosen + [part for key, text in sorted(flags.labels.items()) for part in ("--label", f"{key}={text}")]


def _arguments(stack: Stack, function: StackFunction, flags: BuildFlags, environment: Mapping[str, str]) -> list[str]:
    given = build_arguments(function, template_of(stack, function), flags.options, flags.arguments)
    proxies = {name: environment[name] for name in _PROXIES if environment.get(name)}
    merged = {"ADDITIONAL_PACKAGE": "", **proxies, **given}
    return [part for key, text in sorted(merged.items()) for part in ("--build-arg", f"{key}={text}")]


def _secrets(stack: Stack, function: StackFunction) -> list[str]:
    part = stack.part_of(function)
    parts: list[str] = []
    for name, file in sorted(function.build_secrets.items()):
        what = f"{part.file}: functions.{function.name}.build_secrets.{name}"
        path = inside(part.folder, file, what)
        if not path.is_file() or "," in f"{name}{path}":
            raise BadInput(f"{what}: there is no file {file!r} beside the stack file")
        parts += ["--secret", f"id={name},src={path}"]
    return parts


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
