"""The bare repositories of this platform: made by the first push, one folder for each owner.

As root each owner has a user id of its own, under which git works on whatever that owner's clients send.
"""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stoker_builder.pipeline.git import git_environment
from stoker_builder.tree import remove_tree
from stoker_sdk.errors import BadInput, NotFound, StokerError, Unavailable
from stoker_sdk.ids import UserIds
from stoker_sdk.runs import GONE

_OWNER: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,37}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,99}")
_SHA: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HEADS: Final = "refs/heads/"
_MAX_REF: Final = 4096
_GIT_SECONDS: Final = 30.0
_GONE: Final = ".gone-"
_ACCEPTED: Final = "refs/stoker/accepted"
"""At the commit whose run was stored last. Where the branch is elsewhere, a push was cut short."""


@dataclass(frozen=True)
class Repository:
    """One bare repository, there or not. Owner and name are in lower case, as names are compared without case."""

    owner: str
    name: str
    path: Path
    user: int | None

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def exists(self) -> bool:
        return (self.path / "HEAD").is_file()


class Repositories:
    """All below `folder`. `ids` is None where the platform is not root."""

    def __init__(self, folder: Path, ids: UserIds | None) -> None:
        self._folder = folder
        self._ids = ids
        self._making = asyncio.Lock()

    def find(self, owner: str, name: str) -> Repository:
        """The repository of these names, in any case of letters; it may not be there yet. Raises `BadInput`."""
        owner, name = owner.lower(), name.lower().removesuffix(".git")
        if not _OWNER.fullmatch(owner):
            raise BadInput(f"owner {owner[:60]!r} is not allowed: use 1 to 39 letters, digits and '-'")
        if not _NAME.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
            raise BadInput(f"repository {name[:60]!r} is not allowed: use 1 to 100 letters, digits, '-', '_' and '.'")
        user = self._ids.id_for(f"git:{owner}") if self._ids else None
        return Repository(owner, name, self._folder / owner / f"{name}.git", user)

    def all(self) -> Iterator[Repository]:
        for path in sorted(self._folder.glob("*/[!.]*.git")):
            yield self.find(path.parent.name, path.name)

    async def make(self, repository: Repository) -> None:
        """Create it empty, if it is not there."""
        async with self._making:
            if repository.exists:
                return
            self._make_folders(repository)
            new = repository.path.with_name(f".new-{repository.path.name}")
            remove_tree(new)
            new.mkdir(mode=0o700)
            self._own(repository, new)
            await run_git(repository, "init", "--quiet", "--bare", "--template=", ".", folder=new)
            new.rename(repository.path)

    def retire(self, repository: Repository) -> Repository:
        """Take it out of the way; `retired` finds it until it is deleted. Raises `NotFound`."""
        if not repository.exists:
            raise NotFound(f"there is no repository {repository} here")
        gone = repository.path.with_name(_GONE + repository.path.name)
        remove_tree(gone)
        repository.path.rename(gone)
        return replace(repository, path=gone)

    def retired(self) -> Iterator[Repository]:
        for path in sorted(self._folder.glob(f"*/{_GONE}*.git")):
            name = path.name.removeprefix(_GONE)
            yield replace(self.find(path.parent.name, name), path=path)

    def _make_folders(self, repository: Repository) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._folder.chmod(0o711)
        owner = repository.path.parent
        owner.mkdir(mode=0o700, exist_ok=True)
        self._own(repository, owner)

    @staticmethod
    def _own(repository: Repository, folder: Path) -> None:
        if repository.user is not None:
            os.chown(folder, repository.user, repository.user)


async def head_of(repository: Repository, branch: str) -> str:
    """The commit of a branch, or `GONE`."""
    if not repository.exists:
        return GONE
    ref = f"refs/heads/{branch}"
    text = _text_of(repository, ref)
    return text if _SHA.fullmatch(text) else await _resolved(repository, ref)


async def default_branch(repository: Repository) -> str:
    """The branch that is live: what HEAD names. The first push decides."""
    text = _text_of(repository, "HEAD").removeprefix("ref: ")
    if not text.startswith(_HEADS):
        text = await run_git(repository, "symbolic-ref", "--quiet", "HEAD")
    return text.removeprefix(_HEADS)


def _text_of(repository: Repository, ref: str) -> str:
    """The ref's own file, as git-update-ref(1) writes it, since a push waits for each git that is started; empty where
    there is none, as when git has packed it.
    """
    try:
        with (repository.path / ref).open("rb") as file:
            return file.read(_MAX_REF).decode().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""


async def set_default_branch(repository: Repository, branch: str) -> None:
    await run_git(repository, "symbolic-ref", "HEAD", f"refs/heads/{branch}")


async def accepted(repository: Repository) -> str:
    """The commit of the default branch whose run was stored last, or `GONE`."""
    return await _resolved(repository, _ACCEPTED)


async def note_accepted(repository: Repository, sha: str) -> None:
    await run_git(repository, "update-ref", "--", _ACCEPTED, sha)


async def move(repository: Repository, ref: str, old: str, new: str) -> None:
    """Move, make or delete a ref, if it is where the client saw it. Raises `StokerError` with git's reason."""
    await run_git(repository, "update-ref", "--stdin", text=f"update {ref}\0{new}\0{old}\0", options=("-z",))


async def subject_of(repository: Repository, sha: str) -> str:
    """The first line of the commit's message, at most 200 characters."""
    text = await run_git(repository, "log", "-1", "--format=%s", "--end-of-options", sha)
    return text[:200]


async def _resolved(repository: Repository, ref: str) -> str:
    try:
        return await run_git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except StokerError:
        return GONE


async def run_git(
    repository: Repository,
    *arguments: str,
    folder: Path | None = None,
    text: str = "",
    options: tuple[str, ...] = (),
    seconds: float = _GIT_SECONDS,
) -> str:
    """Its output. Raises `StokerError` with what it said."""
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            *options,
            cwd=folder or repository.path,
            env=git_environment(str(folder or repository.path)),
            stdin=PIPE if text else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            user=repository.user,
            group=repository.user,
            extra_groups=[] if repository.user is not None else None,
        )
    except FileNotFoundError:
        raise Unavailable("git is missing on the platform's machine: install it (Debian: apt install git)") from None
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(text.encode() or None)
    except TimeoutError:
        raise Unavailable(f"git {arguments[0]} took longer than {seconds:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise StokerError(f"git {arguments[0]}: {said[-1][:300] if said else f'exit code {process.returncode}'}")
    return out.decode(errors="replace").strip()
