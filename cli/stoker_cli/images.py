"""Images by Docker: build, push and publish (contract section 9.5), and the names that they get."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from stoker_cli.build_context import build_arguments, template_of, write_context
from stoker_cli.build_flags import BuildFlags
from stoker_cli.programs import find_program, follow, output_of
from stoker_cli.progress import Progress
from stoker_sdk.deployment import tagged
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.paths import inside
from stoker_sdk.stack import Stack, StackFunction

PLATFORM = "linux/amd64"
_REASON = "images are built and pushed with it"
_BUILDER = "multiarch"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
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
    """Write the context, run `docker build` in it, and return the image's name."""
    docker = find_program("docker", _REASON, environment)
    image, context = _prepared(stack, function, flags, environment)
    progress.step("building with docker")
    secrets = _secrets(stack, function)
    extra = [
        *(["--squash"] if flags.squash else []),
        *_flagged(flags),
        *_arguments(stack, function, flags, environment),
        *secrets,
        "--tag",
        image,
        ".",
    ]
    buildkit = {"DOCKER_BUILDKIT": "1"} if secrets else {}
    follow([docker, "build", *extra], progress.log, {**environment, **buildkit}, context)
    return image


def push_image(image: str, environment: Mapping[str, str], progress: Progress) -> None:
    """Raises `BadInput` for a name without a registry or owner: it would go to the world's library images."""
    if "/" not in image:
        raise BadInput(f"image {image!r} cannot be pushed: put the registry or the owner in front, such as me/{image}")
    docker = find_program("docker", _REASON, environment)
    progress.step(f"pushing {image}")
    follow([docker, "push", image], progress.log, environment)


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
    docker = find_program("docker", _REASON, environment)
    _check_buildx(docker, environment)
    image, context = _prepared(stack, function, flags, environment)
    if "/" not in image:
        raise BadInput(f"image {image!r} cannot be published: put the registry or the owner in front")
    progress.step(f"publishing for {platforms}")
    _ensure_builder(docker, environment, progress)
    names = [image, *(f"{image.rpartition(':')[0]}:{extra}" for extra in extra_tags)]
    command = [docker, "buildx", "build", f"--builder={_BUILDER}", "--progress=plain", f"--platform={platforms}"]
    command += ["--output=type=registry,push=true", *_flagged(flags)]
    command += [*_arguments(stack, function, flags, environment), *_secrets(stack, function)]
    follow([*command, *(f"--tag={name}" for name in names), "."], progress.log, environment, context)
    return image


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


def _check_buildx(docker: str, environment: Mapping[str, str]) -> None:
    try:
        output_of([docker, "buildx", "version"], environment)
    except StokerError:
        raise StokerError(
            "docker has no buildx plug-in here, which builds for several platforms: "
            "install it, or use `stoker build` and `stoker push`"
        ) from None


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
