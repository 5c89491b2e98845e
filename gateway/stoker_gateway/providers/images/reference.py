"""What an image's name says: which registry, which repository there, which tag or digest.

The rules are those of the distribution project, as Docker and containerd read them: without a registry it is Docker
Hub's, and there a name without a slash is one of `library/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stoker_sdk.errors import BadInput

DOCKER_HUB = "docker.io"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-f:]+\])(?::\d{1,5})?"
)
_MAX = 255


@dataclass(frozen=True)
class Reference:
    """`registry` is host[:port]; `digest` is empty when only the tag says which one."""

    registry: str
    path: str
    tag: str
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    def pinned(self, digest: str) -> str:
        """The name that means this one image for ever."""
        return f"{self.repository}@{digest}"

    @property
    def is_loopback(self) -> bool:
        host = self.registry.rpartition(":")[0] if re.search(r":\d+$", self.registry) else self.registry
        return host in ("localhost", "[::1]") or bool(re.fullmatch(r"127\.\d+\.\d+\.\d+", host))


def parse_reference(image: str) -> Reference:
    """Raises `BadInput` for a name that no registry can have."""
    name, at, digest = image.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _bad(image, "what follows '@' is not sha256: and 64 hexadecimal digits")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        name, tag = name, ""
    else:
        name = head
        if not _TAG.fullmatch(tag):
            raise _bad(image, "what follows the last ':' is not a tag")
    registry, slash, path = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = DOCKER_HUB, name if slash else f"library/{name}"
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if not _HOST.fullmatch(registry) or not _PATH.fullmatch(path) or len(path) > _MAX:
        raise _bad(image, "write [REGISTRY/]NAME[:TAG], in lower case")
    return Reference(registry, path, tag or ("" if digest else "latest"), digest)


def _bad(image: str, why: str) -> BadInput:
    return BadInput(f"image {image[:120]!r} is not an image's name: {why}")
