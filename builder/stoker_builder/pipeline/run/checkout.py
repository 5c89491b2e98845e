"""Stage 1: the tree of exactly one commit, fetched shallow, in a folder of the run's own.

Git reads what strangers wrote, so it runs as the repository's own user (where the platform is root), with limits, and
with no configuration, hook, submodule, filter or protocol but what is said here.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stoker_builder.child import Account, Children, Limits, Program, TimedOut
from stoker_builder.pipeline.git import MAX_PACK, check_sha, git_environment
from stoker_builder.pipeline.job import RemoteSettings
from stoker_builder.tree import remove_tree
from stoker_builder.usage import used_below
from stoker_sdk.errors import BadInput, StokerError, Unavailable

MAX_FILES: Final = 50_000
MAX_BYTES: Final = 1024 * 1024 * 1024
"""Of the whole checkout, with git's own files while they are there."""
_FETCH_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.5
_LAST_LINES: Final = 5


def check_out(remote: RemoteSettings, sha: str, folder: Path, log: Callable[[str], None]) -> None:
    """Put the commit's files into `folder`, which is there and empty. Raises `StokerError`; nothing secret is in it."""
    git = _Git(remote, folder)
    check_sha(sha)
    if remote.user:
        os.chown(folder, remote.user, remote.user)
    git.run("init", "--quiet")
    git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", remote.url, sha)
    git.run("checkout", "--quiet", "--force", "--detach", sha, "--")
    found = git.run("rev-parse", "--verify", "--end-of-options", "HEAD")
    if found != sha:
        raise StokerError(f"the fetch gave {found[:40]!r}, not the commit {sha}")
    remove_tree(folder / ".git")
    log(f"checked out {sha}")


class _Git:
    def __init__(self, remote: RemoteSettings, folder: Path) -> None:
        config = {"http.extraHeader": f"Authorization: {remote.authorization}"} if remote.authorization else {}
        self._environment = git_environment(str(folder), remote.protocol, config)
        self._account = Account(remote.user) if remote.user else None
        self._folder = folder
        self._children = Children(self._check_size)
        self._looked_at = 0.0
        self._secret = remote.authorization.rpartition(" ")[2]

    def run(self, *arguments: str) -> str:
        """Its output's last line. Raises `StokerError` with what it said."""
        last: deque[str] = deque(maxlen=_LAST_LINES)
        limits = Limits(_FETCH_SECONDS, file_size=MAX_PACK)
        program = Program(("git", *arguments), self._folder, self._environment, limits, self._account)
        try:
            code = self._children.run(program, last.append)
        except TimedOut as error:
            raise StokerError(f"git {arguments[0]} {error} and was stopped") from None
        except OSError as error:
            raise Unavailable(
                f"git cannot be started ({error.strerror}): install it on the platform's machine"
            ) from None
        if code:
            said = " ".join(last) or f"exit code {code}"
            if self._secret:
                said = said.replace(self._secret, "(secret)")
            raise StokerError(f"git {arguments[0]} failed: {said[:500]}")
        return last[-1] if last else ""

    def _check_size(self, ended: bool) -> None:
        """Of files and of what git keeps beside them: a few objects can stand for a tree without end."""
        now = time.monotonic()
        if not ended and now < self._looked_at + _LOOK_SECONDS:
            return
        used = used_below(self._folder)
        if used.files > MAX_FILES or used.disk > MAX_BYTES:
            raise BadInput(
                f"the repository has more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB: keep data elsewhere"
            )
        self._looked_at = time.monotonic()
