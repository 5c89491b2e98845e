"""Stage 2: what the commit asks for. `stack.yml` at the root is the only truth, and it is checked whole at once.

Settings that belong to the platform's operator are not honoured; each one that stands in the file is named in the log.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from stoker_builder.build_secrets import check_build_secret
from stoker_builder.pipeline.run.places import with_place
from stoker_builder.pipeline.seal_key import read_seal_key
from stoker_builder.request import DOCKERFILE, BuildRequest, build_request, image_request, needs_docker, template_of
from stoker_builder.templates import find_template, list_templates
from stoker_builder.tree import remove_tree
from stoker_sdk.deployment import Overrides, function_spec
from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.function import ANNOTATION_PREFIX, FunctionSpec
from stoker_sdk.gateway_address import DEFAULT_GATEWAY
from stoker_sdk.names import check_label
from stoker_sdk.origin import Origin, check_origin
from stoker_sdk.paths import check_tree, inside
from stoker_sdk.runs import ACCOUNT, PLACE, RUN, SHA, Push, Run
from stoker_sdk.sealing import purpose_of, unseal
from stoker_sdk.settings import SETTINGS
from stoker_sdk.stack import Stack, StackFunction, parse_stack

STACK_FILE: Final = "stack.yml"
SOURCE: Final = f"{ANNOTATION_PREFIX}source"
"""An annotation beside those of `stoker_sdk.origin` and `stoker_sdk.runs`: a digest of all that was built."""

_TEMPLATES: Final = "template"
_MAX_STACK: Final = 256 * 1024
_MAX_TEMPLATE: Final = 64 * 1024
_MAX_FUNCTIONS: Final = 200
NOT_IN_PREVIEWS: Final = (f"{ANNOTATION_PREFIX}schedule", f"{ANNOTATION_PREFIX}routes", "topic", "schedule")
"""Annotations that a pull request's functions do not have: the clock and the public addresses are the live ones'."""
LABELS_OF_GIT: Final = "com.openfaas.cloud."
_FIXED_ARGUMENTS: Final = re.compile(
    r"TEST_ENABLED|TEST_TIMEOUT|TEST_MEMORY|BUILDKIT_.*|STOKER_.*|SOURCE_DATE_EPOCH|.*_PROXY", re.IGNORECASE
)
"""Build arguments that are not a repository's to say."""
_IGNORED: Final = ("namespace", "fprocess", "constraints", "platforms", "skip_build")
_LATER: Final = "built/later"


@dataclass(frozen=True)
class Wanted:
    """One function that the commit asks for, checked: what is built, and what is deployed (but for its image)."""

    name: str
    origin: Origin
    request: BuildRequest
    spec: FunctionSpec


@dataclass(frozen=True)
class Manifest:
    """The functions of the commit in the file's order, and lines about what is not honoured."""

    functions: tuple[Wanted, ...]
    notes: tuple[str, ...]


def read_manifest(folder: Path, run: Run, seal_key: Path, *, as_images: bool = False) -> Manifest:
    """Everything is looked at before the first build. `seal_key` is the file of the key that opens build secrets.

    Raises `BadInput` with file and line.
    """
    notes = _checked_templates(folder) if as_images else _without_templates(folder)
    text = _text(folder)
    try:
        stack = _read_stack(folder, text)
        notes += stack.warnings
        wanted = [_wanted(stack, function, run, notes, seal_key, as_images=as_images) for function in stack.functions]
    except StokerError as error:
        raise type(error)(with_place(str(error), STACK_FILE, text)) from None
    if stack.gateway.rstrip("/") not in ("", DEFAULT_GATEWAY):  # that is what `stoker new` writes
        notes.append(f"{STACK_FILE}: provider.gateway is not honoured: it is this platform")
    if stack.templates:
        notes.append(f"{STACK_FILE}: configuration.templates is not honoured: the platform's templates are used")
    return Manifest(tuple(wanted), tuple(notes))


def origin_of_push(push: Push, function: str) -> Origin:
    """Who the function is, on the platform and in its addresses. Raises `BadInput`."""
    branch = "" if push.default or push.pull else push.branch
    return check_origin(push.owner, push.repository, function, branch=branch, pull=push.pull)


def place_mark(push: Push) -> str:
    """The value of `PLACE`: forge and branch."""
    return f"{push.forge} {push.branch}"


def _without_templates(folder: Path) -> list[str]:
    """A template names the program that a function is, which is not a repository's to say."""
    templates = folder / _TEMPLATES
    if not os.path.lexists(templates):
        return []
    remove_tree(templates) if templates.is_dir() and not templates.is_symlink() else templates.unlink()
    return [f"./{_TEMPLATES} is not honoured: the platform's templates are used"]


def _checked_templates(folder: Path) -> list[str]:
    """A repository's own templates: what they say is done in a container. Raises `BadInput`; gives no notes."""
    templates = folder / _TEMPLATES
    if not os.path.lexists(templates):
        return []
    if templates.is_symlink() or not templates.is_dir():
        raise BadInput(f"./{_TEMPLATES} is not a folder")
    check_tree(templates, f"./{_TEMPLATES}")
    for path in templates.glob("*/template.yml"):
        if not path.is_file() or path.stat().st_size > _MAX_TEMPLATE:
            raise BadInput(f"./{path.relative_to(folder)} is not a file of at most {_MAX_TEMPLATE >> 10} KiB")
    return []


def _read_stack(folder: Path, text: str) -> Stack:
    stack = parse_stack(text, {}, file=STACK_FILE, folder=folder, read=lambda name: _environment_file(folder, name))
    if len(stack.functions) > _MAX_FUNCTIONS:
        raise BadInput(f"{STACK_FILE}: has {len(stack.functions)} functions, and {_MAX_FUNCTIONS} are the most")
    return stack


def _text(folder: Path) -> str:
    try:
        return _read(folder / STACK_FILE, STACK_FILE)
    except FileNotFoundError:
        raise NotFound(_no_stack(folder)) from None


def _read(path: Path, shown: str) -> str:
    """A plain file's text; a link is refused, wherever it leads."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadInput(f"{shown}: is a symbolic link or cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadInput(f"{shown}: is not a file")
        content = file.read(_MAX_STACK + 1)
    if len(content) > _MAX_STACK:
        raise BadInput(f"{shown}: is larger than {_MAX_STACK >> 10} KiB, too large for a stack file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{shown}: is not UTF-8 text") from None


def _environment_file(folder: Path, name: str) -> str:
    path = inside(folder, name, f"{STACK_FILE}: environment_file {name!r}")
    try:
        return _read(path, name)
    except FileNotFoundError:
        raise BadInput(f"{STACK_FILE}: environment_file: there is no {name!r}") from None


def _no_stack(folder: Path) -> str:
    text = f"there is no {STACK_FILE} at the root of the repository: it says which functions there are"
    others = [path.name for path in sorted(folder.glob("*.y*ml")) if _looks_like_a_stack(path)]
    return f"{text}; rename {others[0]} to {STACK_FILE}" if others else text


def _looks_like_a_stack(path: Path) -> bool:
    try:
        return bool(parse_stack(_read(path, path.name), {}, file=path.name).functions)
    except (StokerError, OSError):
        return False


def _wanted(
    stack: Stack, function: StackFunction, run: Run, notes: list[str], seal_key: Path, *, as_images: bool
) -> Wanted:
    where = f"{STACK_FILE}: functions.{function.name}"
    if not function.lang or not function.handler:
        raise BadInput(f"{where}: needs `lang` and `handler`: a push builds what it deploys")
    notes += [f"{where}.{key} is not honoured here" for key in _IGNORED if getattr(function, key)]
    if not as_images:
        _check_template(where, function.lang)
    arguments = _honoured(
        f"{where}.build_args", function.build_args, lambda key: not _FIXED_ARGUMENTS.fullmatch(key), notes
    )
    labels = _honoured(f"{where}.labels", function.labels, lambda key: not key.startswith(LABELS_OF_GIT), notes)
    annotations = _honoured(f"{where}.annotations", function.annotations, _is_theirs, notes)
    origin = origin_of_push(run.push, function.name)
    _check_secrets(where, function.secrets, origin.owner)
    if run.push.is_strangers and (function.secrets or function.build_secrets):
        notes.append(f"{where}: secrets are not given to the pull request of a fork")
        function = replace(function, secrets=(), build_secrets={})
    honoured = replace(
        function,
        build_args=arguments,
        namespace="",
        fprocess="",
        constraints=(),
        labels=labels | _labels(run),
        annotations=annotations | origin.annotations | _marks(run),
    )
    process = _process(stack, function) if as_images else ""
    spec = msgspec.structs.replace(
        function_spec(honoured, Overrides(image=_LATER, fprocess=process)), service=origin.name
    )
    if run.push.pull and any(key in (spec.annotations or {}) for key in NOT_IN_PREVIEWS):
        notes.append(f"{where}: schedules and routes are not honoured for a pull request")
        left = {key: text for key, text in (spec.annotations or {}).items() if key not in NOT_IN_PREVIEWS}
        spec = msgspec.structs.replace(spec, annotations=left)
    try:
        spec.check()
        request = (image_request if as_images else build_request)(stack, honoured, {})
        secrets = _opened(stack.folder, where, function.build_secrets, run.push, seal_key)
    except StokerError as error:
        text = str(error)
        raise type(error)(text if text.startswith(STACK_FILE) else f"{where}: {text}") from None
    settings = msgspec.structs.replace(request.settings, offline=True, secrets=secrets)
    return Wanted(function.name, origin, replace(request, settings=settings), spec)


def _honoured(
    where: str, values: Mapping[str, str], allowed: Callable[[str], bool], notes: list[str]
) -> dict[str, str]:
    """Those that a stack file may set; a note for each of the others."""
    notes += [f"{where}.{key} is not honoured here" for key in values if not allowed(key)]
    return {key: text for key, text in values.items() if allowed(key)}


def _marks(run: Run) -> dict[str, str]:
    """Annotations that say which push the function came by, and whose that was."""
    marks = {PLACE: place_mark(run.push), SHA: run.push.sha, RUN: str(run.id)}
    return marks | ({ACCOUNT: run.account} if run.account else {})


def _process(stack: Stack, function: StackFunction) -> str:
    """What an image runs whose template says so outside of its Dockerfile (section 9.2)."""
    template = template_of(stack, function)
    return template.fprocess if template is not None and needs_docker(function, template) else ""


def _check_template(where: str, lang: str) -> None:
    """Raises `BadInput` for a language that this platform does not build."""
    if lang == DOCKERFILE:
        raise BadInput(f"{where}.lang: a Dockerfile is not built here: choose one of `stoker template list`")
    try:
        template = find_template(lang)
    except NotFound:
        known = ", ".join(each.name for each in list_templates() if each.mode)
        raise BadInput(f"{where}.lang: template {lang!r} does not exist here: choose one of {known}") from None
    except StokerError as error:
        raise BadInput(f"{where}.lang: {error}") from None
    if not template.mode:
        raise BadInput(f"{where}.lang: template {lang!r} cannot be built without containers: choose another")


def _is_theirs(key: str) -> bool:
    """Whether a stack file may set the annotation: none of ours but the settings."""
    prefix, slash, name = key.rpartition("/")
    return f"{prefix}{slash}" != ANNOTATION_PREFIX or name in (*SETTINGS, "revisions")


def _opened(folder: Path, where: str, files: Mapping[str, str], push: Push, seal_key: Path) -> dict[str, str]:
    """The build secrets of a function, each sealed in a file of the repository. Raises `BadInput`."""
    opened: dict[str, str] = {}
    for name, file in files.items():
        what = f"{where}.build_secrets.{name}"
        path = inside(folder, file, what)
        try:
            text = _read(path, file)
            opened[name] = unseal(read_seal_key(seal_key), text, purpose_of(push.owner, push.repository, name)).decode()
            check_build_secret(name, opened[name])
        except FileNotFoundError:
            raise BadInput(f"{what}: there is no {file!r} in the repository") from None
        except (BadInput, UnicodeDecodeError) as error:
            raise BadInput(f"{what}: {error if isinstance(error, BadInput) else 'is not text'}") from None
    return opened


def _check_secrets(where: str, names: Iterable[str], owner: str) -> None:
    """Secrets are one owner's by their first part. Raises `BadInput`."""
    for name in names:
        if not name.startswith(f"{owner}."):
            raise BadInput(
                f"{where}.secrets: {name!r} is not a secret of {owner}: theirs are called {owner}.NAME "
                f"(`stoker secret create {owner}.{name}`)"
            )


def _labels(run: Run) -> dict[str, str]:
    """Those by which tools of OpenFaaS Cloud know a function of git; what is no label's value is left out."""
    push = run.push
    values = {"git-cloud": "1", "git-owner": push.owner, "git-repo": push.repository, "git-sha": push.sha}
    values |= {"git-branch": push.branch, "git-scm": push.forge}
    if run.account:
        values["git-owner-id"] = run.account.rpartition(" ")[2]
    labels = {}
    for key, value in values.items():
        try:
            check_label(LABELS_OF_GIT + key, value)
        except BadInput:
            continue
        labels[LABELS_OF_GIT + key] = value
    return labels
