"""Templates from git repositories: what is fetched, and how it gets into `./template` (contract section 9.4).

A repository is a stranger's. Its files come through `git archive`, so none of its hooks, filters and
submodules run; only plain files, and links that stay within their template, are written; and a template
appears by a rename, whole or not at all.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from stoker_builder.templates import load_template
from stoker_sdk.errors import BadInput, NotFound, StokerError, TooLarge
from stoker_sdk.fetch import without_password
from stoker_sdk.paths import check_tree
from stoker_sdk.programs import find_program, follow, output_of
from stoker_sdk.units import now_rfc3339

PROTOCOLS = "https:http:ssh:git:file"
MAX_REPOSITORY = 256 << 20
"""Bytes that one file of git's may have here: a pack of templates is a few megabytes."""

MAX_TEMPLATES = 64 << 20
MAX_FILES = 10_000

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,200}")
_SHA = re.compile(r"sha-([0-9a-f]{7,40})")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")
_SECONDS = 300


@dataclass(frozen=True)
class Source:
    """A repository, and what of it: a branch, a tag, `sha-HEX`, or empty for its default branch."""

    url: str
    ref: str = ""

    @property
    def shown(self) -> str:
        return without_password(self.url) + (f"#{self.ref}" if self.ref else "")


class _Meta(msgspec.Struct):
    """`meta.json` of a pulled template."""

    repository: str
    ref_name: str
    sha: str
    written_at: str


def parse_source(text: str) -> Source:
    """`URL[#REF]`. Raises `BadInput` for what git might take for something else than a repository."""
    url, _, ref = text.strip().partition("#")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if not url or url.startswith("-") or "::" in url or any(not each.isprintable() or each == " " for each in url):
        raise BadInput(f"{without_password(text)!r} is not a repository: write its address, or the path of a folder")
    if scheme and scheme not in PROTOCOLS.split(":"):
        raise BadInput(f"{scheme}:// addresses are not fetched: use one of {', '.join(PROTOCOLS.split(':'))}")
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise BadInput(f"{ref[:80]!r} is not a branch, a tag or sha-HEX")
    return Source(url, ref)


def pull(
    source: Source, target: Path, environment: Mapping[str, str], *, overwrite: bool = False, only: str = ""
) -> tuple[list[str], list[str]]:
    """Put the repository's templates into the folder `target`; returns the names written and those kept.

    `only` names one of them, and `NAME@REF` gives the copy that name. Raises `BadInput` for a repository that
    cannot be used, `NotFound` when there is no such template in it, `StokerError` with git's own words.
    """
    git = find_program("git", "templates are fetched with it", environment)
    with tempfile.TemporaryDirectory(prefix="stoker-template-") as folder:
        repository, staging = Path(folder) / "repository", Path(folder) / "staging"
        sha = _fetch(git, source, repository, environment)
        _extract(git, repository, sha, staging, environment)
        found = _templates(staging, source, only)
        meta = _Meta(without_password(source.url), source.ref, sha, now_rfc3339())
        for path in found.values():
            (path / "meta.json").write_bytes(msgspec.json.encode(meta) + b"\n")
        return _install(found, target, overwrite)


def _fetch(git: str, source: Source, repository: Path, environment: Mapping[str, str]) -> str:
    """Fetch one commit and return its full hash; a short hash needs the whole history."""
    quiet = {**environment, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": PROTOCOLS, "LC_ALL": "C"}
    quiet |= {"GIT_DIR": str(repository)}
    url = str(Path(source.url).absolute()) if Path(source.url).is_dir() else source.url
    short = _SHA.fullmatch(source.ref)
    wanted = (short.group(1) if short else source.ref) or "HEAD"
    is_part = bool(short) and len(wanted) < 40
    references = ["+refs/heads/*:refs/heads/*"] if is_part else [wanted]
    depth = [] if is_part else ["--depth=1"]
    command = [git, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", *depth, "--", url, *references]
    try:
        output_of([git, "init", "--quiet", "--bare"], quiet)
        follow(command, lambda _: None, quiet, prepare=_limit)
        commit = wanted if is_part else "FETCH_HEAD"
        return output_of([git, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], quiet)
    except StokerError as error:
        raise StokerError(f"{source.shown} cannot be fetched: {_without(source, str(error))}") from None


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_REPOSITORY, MAX_REPOSITORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _without(source: Source, text: str) -> str:
    return text.replace(source.url, without_password(source.url))


def _extract(git: str, repository: Path, sha: str, staging: Path, environment: Mapping[str, str]) -> None:
    """Write the folder `template` of a commit below `staging`."""
    staging.mkdir()
    command = [git, "archive", "--format=tar", sha, "--", "template"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environment, "GIT_DIR": str(repository)},
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                links = _written(tar, staging)
        except tarfile.ReadError:
            raise NotFound("the repository has no folder `template`: it holds no templates") from None
        finally:
            process.terminate()
    for path, goal in links:
        path.symlink_to(goal)


def _written(tar: tarfile.TarFile, staging: Path) -> list[tuple[Path, str]]:
    """Write the plain files; the links are returned, to be made when nothing can be written through them."""
    links: list[tuple[Path, str]] = []
    left, files = MAX_TEMPLATES, 0
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if ".." in parts or member.name.startswith("/"):
            raise BadInput(f"the repository has a file {member.name[:80]!r}, which leads out of it")
        files, left = files + 1, left - member.size
        if left < 0 or files > MAX_FILES:
            raise TooLarge(f"its templates are larger than {MAX_TEMPLATES >> 20} MiB, or more than {MAX_FILES} files")
        path = staging.joinpath(*parts)
        if member.issym():
            path.parent.mkdir(parents=True, exist_ok=True)
            links.append((path, member.linkname))
        elif member.isreg():
            _write_file(tar, member, path)
    return links


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if member.mode & 0o100 else 0o644
    content = tar.extractfile(member)
    assert content is not None
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        shutil.copyfileobj(content, file)


def _templates(staging: Path, source: Source, only: str) -> dict[str, Path]:
    """The templates by the name that they will have here. Each is read, so that a broken one is not installed."""
    base, _, _ = only.partition("@")
    parent = staging / "template"
    folders = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    found: dict[str, Path] = {}
    for path in folders:
        if not _NAME.fullmatch(path.name) or not (path / "template.yml").is_file() or (base and path.name != base):
            continue
        check_tree(path, f"template {path.name!r} of {source.shown}")
        load_template(path)
        found[only or path.name] = path
    if not found:
        raise NotFound(f"{source.shown} has no template{f' {base!r}' if base else 's'} in its folder `template`")
    return found


def _install(found: dict[str, Path], target: Path, overwrite: bool) -> tuple[list[str], list[str]]:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BadInput(f"{target} is not a folder: templates are kept there")
    written, kept = [], []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, path in found.items():
            final = target / name
            if (final.exists() or final.is_symlink()) and not overwrite:
                kept.append(name)
                continue
            _replace(path, final)
            written.append(name)
    except (OSError, shutil.Error) as error:
        raise StokerError(f"{target} cannot be written: {error.strerror or error}") from None
    return written, kept


def _replace(path: Path, final: Path) -> None:
    """Copy beside the goal, since another file system may hold the staging, then rename."""
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".new-") as beside:
        copy = Path(beside) / "template"
        shutil.copytree(path, copy, symlinks=True)
        if final.is_symlink():
            final.unlink()
        elif final.exists():
            final.rename(Path(beside) / "old")
        copy.rename(final)
