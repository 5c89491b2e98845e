"""The fields of GitHub's webhooks that count here. Everything else in them is ignored, URLs to clone from above all."""

from __future__ import annotations

import msgspec


class Owner(msgspec.Struct, frozen=True):
    login: str
    id: int = 0


class Repository(msgspec.Struct, frozen=True):
    """`owner` is missing where an installation lists repositories."""

    id: int
    name: str
    full_name: str
    owner: Owner | None = None
    default_branch: str = ""


class HeadCommit(msgspec.Struct, frozen=True):
    message: str = ""


class Pusher(msgspec.Struct, frozen=True):
    name: str = ""


class PushEvent(msgspec.Struct, frozen=True):
    ref: str
    after: str
    repository: Repository
    deleted: bool = False
    head_commit: HeadCommit | None = None
    pusher: Pusher | None = None


class Head(msgspec.Struct, frozen=True):
    """Of a pull request. `repo` is null where the fork is gone."""

    sha: str
    repo: Repository | None = None


class PullRequest(msgspec.Struct, frozen=True):
    head: Head
    title: str = ""
    user: Owner | None = None
    state: str = ""


class Label(msgspec.Struct, frozen=True):
    name: str = ""


class PullRequestEvent(msgspec.Struct, frozen=True):
    action: str
    number: int
    pull_request: PullRequest
    repository: Repository
    label: Label | None = None


class Account(msgspec.Struct, frozen=True):
    account: Owner


class InstallationEvent(msgspec.Struct, frozen=True):
    action: str
    installation: Account
    repositories: list[Repository] | None = None
    repositories_added: list[Repository] | None = None
    repositories_removed: list[Repository] | None = None


class _Was(msgspec.Struct, frozen=True, rename={"before": "from"}):
    before: str = ""


class _RenamedRepository(msgspec.Struct, frozen=True):
    name: _Was | None = None


class _FormerOwner(msgspec.Struct, frozen=True):
    user: Owner | None = None
    organization: Owner | None = None


class _MovedOwner(msgspec.Struct, frozen=True, rename={"before": "from"}):
    before: _FormerOwner | None = None


class Changes(msgspec.Struct, frozen=True):
    """Of a repository: what was before."""

    repository: _RenamedRepository | None = None
    owner: _MovedOwner | None = None
    default_branch: _Was | None = None

    @property
    def former_name(self) -> str:
        return self.repository.name.before if self.repository and self.repository.name else ""

    @property
    def former_owner(self) -> str:
        former = self.owner.before if self.owner else None
        login = (former.user or former.organization) if former else None
        return login.login if login else ""

    @property
    def former_branch(self) -> str:
        return self.default_branch.before if self.default_branch else ""


class RepositoryEvent(msgspec.Struct, frozen=True):
    action: str
    repository: Repository
    changes: Changes = Changes()


class Check(msgspec.Struct, frozen=True):
    head_sha: str


class CheckEvent(msgspec.Struct, frozen=True):
    """Of a check run or a check suite."""

    action: str
    repository: Repository
    check_run: Check | None = None
    check_suite: Check | None = None
