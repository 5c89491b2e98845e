"""What a Dockerfile of somebody else's repository may do, and what is made of it.

BuildKit has no limits of its own for who may build what, so the text is read before it is built. Whatever two readers
could take differently is refused. The rules are for the platform and for other owners; what a build does to its own
image is its owner's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from stoker_builder.images.dockerfile import FROM, instructions, mount_of, sources_of, split
from stoker_sdk.errors import BadInput

_INSTRUCTIONS: Final = frozenset(
    ("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "SHELL")
    + ("STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)
_FLAGS: Final = {
    "FROM": ("platform=",),
    "COPY": ("from=", "chown=", "chmod=", "link", "link="),
    "ADD": ("from=", "chown=", "chmod=", "link", "link="),
    "RUN": ("mount=", "network=none"),
    "HEALTHCHECK": ("interval=", "timeout=", "start-period=", "start-interval=", "retries="),
}
"""What may stand behind `--`: with a value, where it ends in `=`. Without, BuildKit may take the next word for it."""
_MOUNTS: Final = ("bind", "cache", "secret", "tmpfs")
_MAX_SIZE: Final = 64 * 1024
"""Bytes."""

_DIRECTIVE: Final = re.compile(r"#\s*(syntax|escape)\s*=", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ADDED: Final = re.compile(r"[A-Za-z0-9._/*-]+([ \t]+[A-Za-z0-9._/*-]+)+")
"""Files that no escape, quote or variable makes an address of."""
_STAGE: Final = re.compile(r"[a-z][a-z0-9._-]*")
_VARIABLE: Final = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_PLATFORM: Final = re.compile(r"(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT|STAGE)")
"""Arguments that have a value of BuildKit's own."""
_OF_PLATFORM: Final = re.compile(r"--platform=\$((TARGET|BUILD)PLATFORM|\{(TARGET|BUILD)PLATFORM(:-[a-z0-9/]+)?\})")
"""What a FROM may have a variable in."""
_ARG: Final = re.compile(r"ARG\s+([A-Za-z_]\w*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?\s*$", re.IGNORECASE)


def checked(dockerfile: str, arguments: Mapping[str, str], prefix: str, scope: str) -> str:
    """The Dockerfile to build in its place. Raises `BadInput` with what is not allowed.

    `arguments` are all that the build is given. Images under `prefix` belong to others, by whatever name the registry
    is called. `scope` says whose build it is: cache folders, and steps that see a secret, are shared with no other.
    """
    dockerfile = dockerfile.replace("\r\n", "\n")
    if not dockerfile.strip():
        raise BadInput("there is no Dockerfile to build from")
    _check_text(dockerfile)
    mark = sha256(scope.encode()).hexdigest()[:20]
    lines = ["# Checked."]  # A directive behind a comment is none.
    reader = _Reader(arguments, prefix)
    for instruction in instructions(dockerfile):
        name, flags, rest = reader.read(instruction)
        if any(_type_of(flag) == "secret" for flag in flags):
            lines.append(f"ARG STOKER_SCOPE={mark}")
        line = " ".join([name, *(_scoped(flag, mark) for flag in flags), rest])
        if line.endswith("\\"):
            raise BadInput(f"Dockerfile: {line[:60]!r} ends in a backslash, and nothing is left to follow it")
        lines.append(line)
    return "\n".join(lines) + "\n"


class _Reader:
    def __init__(self, arguments: Mapping[str, str], prefix: str) -> None:
        self._arguments = arguments
        self._path = prefix.partition("/")[2]
        self._known: dict[str, str] = {}
        self._stages: set[str] = set()
        self._begun = False

    def read(self, instruction: str) -> tuple[str, list[str], str]:
        """As `split`. Raises `BadInput`."""
        name, flags, rest = split(instruction)
        if name not in _INSTRUCTIONS:
            raise BadInput(f"Dockerfile: {name[:40]!r} is not allowed in a push")
        for flag in flags:
            _check_flag(name, flag)
        if name in ("RUN", "COPY", "ADD") and "<<" in rest:
            raise BadInput(f"Dockerfile: {name} with a here-document is not allowed in a push: put it into a file")
        if name == "ADD" and not _ADDED.fullmatch(rest):
            raise BadInput(
                "Dockerfile: ADD of an address is not allowed in a push, nor of a name with more than letters, digits "
                "and '._/*-': fetch it in a RUN, or use COPY"
            )
        if name == "ARG" and not self._begun:
            self._take(instruction)
        if name == "FROM":
            self._from(instruction)
        for source in sources_of(name, flags):
            self._check_image(source, "takes files from")
        return name, flags, rest

    def _take(self, instruction: str) -> None:
        found = _ARG.match(instruction)
        if found is None or found[1] in self._known or _PLATFORM.fullmatch(found[1]):
            raise BadInput("Dockerfile: an ARG before FROM must be one NAME=VALUE, and the only one of its name")
        self._known[found[1]] = self._arguments.get(found[1], (found[2] or "").strip("\"'"))

    def _from(self, instruction: str) -> None:
        found = FROM.match(instruction)
        if found is None:
            raise BadInput(f"Dockerfile: {instruction[:80]!r} cannot be read")
        self._begun = True
        self._check_image(found[1], "is made from")
        if found[2]:
            if not _STAGE.fullmatch(found[2].lower()):
                raise BadInput(
                    f"Dockerfile: {found[2][:60]!r} is not a stage's name: letters, digits, '.', '_' and '-'"
                )
            self._stages.add(found[2].lower())

    def _check_image(self, text: str, what: str) -> None:
        image = _VARIABLE.sub(lambda match: self._known.get(match[1] or match[2], match[0]), text).lower()
        if image in self._stages or image.isdigit():
            return
        if not re.fullmatch(r"[a-z0-9][a-z0-9._:/@-]*|\[[0-9a-f:]+\][a-z0-9._:/@-]+", image):
            raise BadInput(f"Dockerfile: {text[:80]!r} is not allowed in a push: write the image out, or as one ARG")
        if f"/{self._path}/" in f"/{image}":
            raise BadInput(f"Dockerfile: it {what} {image[:80]!r}, an image of this platform's owners")


def _check_text(dockerfile: str) -> None:
    try:
        size = len(dockerfile.encode())
    except UnicodeEncodeError:
        raise BadInput("Dockerfile: it is not UTF-8: write it anew in that") from None
    if size > _MAX_SIZE:
        raise BadInput(f"Dockerfile: it is larger than {_MAX_SIZE >> 10} KiB: put what its steps do into scripts")
    for line in dockerfile.split("\n"):
        if _CONTROL.search(line) or "\ufeff" in line:
            raise BadInput("Dockerfile: control characters are not allowed in a push")
        if any(letter.isspace() and letter not in " \t" for letter in line):
            raise BadInput("Dockerfile: white space other than spaces and tabs is not allowed in a push")
        if _DIRECTIVE.match(line.strip()):
            raise BadInput(
                f"Dockerfile: {line.strip()[:60]!r} is not allowed in a push: the platform has its own reader"
            )
        if line.rstrip(" \t").endswith("\\\\"):
            raise BadInput("Dockerfile: a line that ends in two backslashes is not allowed in a push")


def _check_flag(name: str, flag: str) -> None:
    """BuildKit reads a line byte by byte here, and takes a byte within a letter beyond ASCII for a space."""
    if name == "FROM" and _OF_PLATFORM.fullmatch(flag):
        return
    text = flag.removeprefix("--")
    allowed = _FLAGS.get(name, ())
    is_plain = text.isascii() and "--" not in text and not set(text) & set("\"'\\$")
    is_allowed = any(text.startswith(each) if each.endswith("=") else text == each for each in allowed)
    if not is_plain or not is_allowed:
        raise BadInput(f"Dockerfile: {name} {flag[:60]} is not allowed in a push")
    if text.startswith("mount=") and _type_of(flag) not in _MOUNTS:
        raise BadInput(f"Dockerfile: {name} {flag[:60]} is not allowed in a push")


def _type_of(flag: str) -> str:
    """Of a mount; empty for another flag."""
    return dict(mount_of(flag)).get("type", "bind") if flag.startswith("--mount=") else ""


def _scoped(flag: str, mark: str) -> str:
    """A cache folder's name, which is its path where none is given, with whose it is."""
    if _type_of(flag) != "cache":
        return flag
    parts = dict(mount_of(flag))
    target = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
    id = f"{mark}-{parts.pop('id', '') or target}"
    return "--mount=" + ",".join([*(f"{key}={value}" if value else key for key, value in parts.items()), f"id={id}"])
