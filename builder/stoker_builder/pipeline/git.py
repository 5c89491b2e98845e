"""How git is called on what strangers wrote: which protocols, no hooks, no configuration but ours, no questions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stoker_sdk.errors import BadInput

_SHA: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_BRANCH: Final = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,255}")

MAX_PACK: Final = 512 * 1024 * 1024
"""Bytes of one file that git may write: a pack, or a file of the checkout."""

_CONFIG: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.protectNTFS": "true",
    "core.protectHFS": "true",
    "transfer.fsckObjects": "true",
    "http.followRedirects": "false",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "protocol.version": "2",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "pack.threads": "1",
}


def git_environment(home: str, protocol: str = "", config: Mapping[str, str] | None = None) -> dict[str, str]:
    """All that git gets to see. `protocol` is the one that it may speak, none by default; `config` is added to ours,
    and never stands on a command line or in a file.
    """
    pairs = {**_CONFIG, **(config or {})}
    numbered: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": protocol or "none",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ADVICE": "0",
        **numbered,
    }


def check_sha(sha: str) -> str:
    """Raises `BadInput` for what is not a whole commit id."""
    if not _SHA.fullmatch(sha):
        raise BadInput(f"{sha[:80]!r} is not a commit: it has 40 or 64 hex digits")
    return sha


def check_branch(branch: str) -> str:
    """Raises `BadInput` for what git would not take as a branch, or could take for an option."""
    bad = ("..", "//", "@{", ".lock/")
    if (
        not _BRANCH.fullmatch(branch)
        or branch.startswith(("-", "/", "."))
        or branch.endswith(("/", ".", ".lock"))
        or any(each in branch for each in bad)
        or "/." in branch
        or branch in ("@", "HEAD")
    ):
        raise BadInput(f"branch {branch[:80]!r} is not a name that git takes")
    return branch
