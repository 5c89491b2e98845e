"""Secrets of a build: variables of the step that installs packages, and of nothing else. They stay out of logs, of
environments that others share, and of what is published.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from stoker_builder.errors import FailedInstall
from stoker_builder.tree import digest_of, files_below
from stoker_sdk.errors import BadInput

HIDDEN: Final = "(secret)"
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_OURS: Final = re.compile(
    r"(LD_|DYLD_|PYTHON|NODE_|UV_CACHE|UV_TARGET|UV_PYTHON|GIT_).*|PATH|HOME|LANG|TMPDIR|SHELL|IFS"
)
_SHORTEST: Final = 6


def check_build_secret(name: str, value: str) -> None:
    """Raises `BadInput` for a name that would change more than an index's credentials, and for a value that hides
    nothing.
    """
    if not _NAME.fullmatch(name) or _OURS.fullmatch(name):
        raise BadInput(f"build secret {name[:80]!r} is not allowed: use capitals, digits and '_', such as INDEX_TOKEN")
    if len(value) < _SHORTEST or not value.isprintable():
        raise BadInput(f"build secret {name}: has fewer than {_SHORTEST} characters, or some that cannot be printed")


def forms_of(secrets: Mapping[str, str]) -> list[str]:
    """All that a log could show of them, the longest first."""
    found = set()
    for value in secrets.values():
        data = value.encode()
        found |= {value, quote(value), quote(value, safe=""), base64.b64encode(data).decode(), data.hex()}
    return sorted(found, key=len, reverse=True)


def environment_of(digest: str, secrets: Mapping[str, str]) -> str:
    """The digest of packages that these secrets gave, which nobody else has."""
    if not digest or not secrets:
        return digest
    pairs = [f"{name} {hashlib.sha256(value.encode()).hexdigest()}" for name, value in sorted(secrets.items())]
    return digest_of(["with secrets", digest, *pairs])


def check_clean(folder: Path, secrets: Mapping[str, str]) -> None:
    """Installers note where a package came from: there the secrets are taken out. Raises `FailedInstall` where one is
    in a package itself.
    """
    forms = [form.encode() for form in forms_of(secrets)]
    for path in files_below(folder) if forms else ():
        content = path.read_bytes()
        if not any(form in content for form in forms):
            continue
        if path.parent.suffix != ".dist-info" and path.name != ".package-lock.json":
            raise FailedInstall(f"{path.relative_to(folder)} of a package holds a build secret: nothing is published")
        path.write_bytes(_without(content, forms))


def _without(content: bytes, forms: Iterable[bytes]) -> bytes:
    for form in forms:
        content = content.replace(form, HIDDEN.encode())
    return content
