"""What a webhook asks for: a pure function from an event's name and its bytes to a few deeds.

Names, branches and commits are checked here; whoever carries a deed out need not distrust them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec

from stoker_builder.pipeline.git import check_branch, check_sha
from stoker_builder.pipeline.github import payloads
from stoker_builder.pipeline.github.payloads import PullRequestEvent
from stoker_sdk.errors import BadInput
from stoker_sdk.runs import FORK, GONE, OWNER_ID, Push

FORGE: Final = "github"
ALLOW_LABEL: Final = "stoker preview"
"""Who puts it on a fork's pull request allows the commit that it is at then, and no later one."""
ID: Final = "id"
"""In `Push.details`: the repository's number."""

_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HEADS: Final = "refs/heads/"
_REPOSITORY_ACTIONS: Final = ("deleted", "renamed", "transferred", "edited")


@dataclass(frozen=True)
class Known:
    """A repository of GitHub, by checked names. `branch` is the default one, `owner_id` the account's number; empty and
    0 where the event does not tell.
    """

    id: int
    owner: str
    name: str
    branch: str = ""
    owner_id: int = 0

    @property
    def details(self) -> dict[str, str]:
        """For its pushes."""
        return {ID: str(self.id)} | ({OWNER_ID: str(self.owner_id)} if self.owner_id else {})


@dataclass(frozen=True)
class Accept:
    """The push becomes a run."""

    push: Push


@dataclass(frozen=True)
class Connect:
    """Pushes to the repository are looked for from now on. `deploy`: its head becomes a run, too."""

    repository: Known
    deploy: bool = False


@dataclass(frozen=True)
class Disconnect:
    """The repository is gone, or not ours to deploy any more. Without a name: all of the owner's.

    Names can be somebody else's by now, so `id` is the repository's number, and `owner_id` the account's; 0: not told.
    """

    owner: str
    name: str = ""
    id: int = 0
    owner_id: int = 0


@dataclass(frozen=True)
class LeaveBranch:
    """Another branch is the default one now; what was deployed from this one goes."""

    repository: Known
    branch: str


@dataclass(frozen=True)
class Rerun:
    """Somebody asks for the commit's run again."""

    owner: str
    name: str
    sha: str


Deed = Accept | Connect | Disconnect | LeaveBranch | Rerun

T = TypeVar("T")


def read_event(event: str, body: bytes, *, forks: bool = False) -> list[Deed]:
    """Empty for what starts nothing. `forks`: pull requests of forks need no label. Raises `BadInput`."""
    if event == "push":
        return _pushed(_decoded(body, payloads.PushEvent))
    if event == "pull_request":
        return _pull_request(_decoded(body, PullRequestEvent), forks)
    if event in ("installation", "installation_repositories"):
        return _installed(_decoded(body, payloads.InstallationEvent))
    if event == "repository":
        return _repository(_decoded(body, payloads.RepositoryEvent))
    if event in ("check_run", "check_suite"):
        return _check(_decoded(body, payloads.CheckEvent))
    return []


def _pushed(event: payloads.PushEvent) -> list[Deed]:
    repository = _known(event.repository)
    if not event.ref.startswith(_HEADS):
        return []
    branch = check_branch(event.ref.removeprefix(_HEADS))
    if branch != repository.branch:
        return []
    gone = event.deleted or not event.after.strip("0")
    push = Push(
        FORGE,
        repository.owner,
        repository.name,
        branch,
        GONE if gone else check_sha(event.after),
        by=_line(event.pusher.name if event.pusher else ""),
        subject=_line(event.head_commit.message if event.head_commit else ""),
        details=repository.details,
    )
    return [Accept(push)]


def _pull_request(event: PullRequestEvent, forks: bool) -> list[Deed]:
    repository, pull = _known(event.repository), event.pull_request
    if not 0 < event.number < 10**9:
        raise BadInput(f"pull request {event.number} is none: its number is above 0")
    is_fork = pull.head.repo is None or pull.head.repo.id != repository.id
    if event.action == "closed":
        return [Accept(pull_push(repository, event.number, pull, GONE, is_fork=is_fork))]
    label = event.label.name if event.label is not None else ""
    moved = event.action in ("opened", "reopened", "synchronize") and (forks or not is_fork)
    allowed = event.action == "labeled" and is_fork and label == ALLOW_LABEL
    if not moved and not allowed:
        return []
    return [Accept(pull_push(repository, event.number, pull, check_sha(pull.head.sha), is_fork=is_fork))]


def pull_push(repository: Known, number: int, pull: payloads.PullRequest, sha: str, *, is_fork: bool) -> Push:
    """A pull request is a place of its own: the branch's name, which is a stranger's with forks, is no part of it."""
    return Push(
        FORGE,
        repository.owner,
        repository.name,
        f"pull/{number}",
        sha,
        default=False,
        pull=number,
        by=_line(pull.user.login if pull.user else ""),
        subject=_line(pull.title),
        details=repository.details | ({FORK: "true"} if is_fork else {}),
    )


def _installed(event: payloads.InstallationEvent) -> list[Deed]:
    account = event.installation.account
    owner = _checked_owner(account.login)
    if event.action == "deleted":
        return [Disconnect(owner, owner_id=account.id)]
    if event.action == "created":
        return [Connect(replace(_known(each), owner_id=account.id)) for each in event.repositories or ()]
    added = [Connect(replace(_known(each), owner_id=account.id)) for each in event.repositories_added or ()]
    removed = [_known(each) for each in event.repositories_removed or ()]
    return [*added, *(Disconnect(each.owner, each.name, each.id) for each in removed)]


def _repository(event: payloads.RepositoryEvent) -> list[Deed]:
    if event.action not in _REPOSITORY_ACTIONS:
        return []
    repository, changes = _known(event.repository), event.changes
    if event.action == "deleted":
        return [Disconnect(repository.owner, repository.name, repository.id)]
    if event.action == "edited":
        former = changes.former_branch
        if not former or former == repository.branch:
            return []
        return [LeaveBranch(repository, check_branch(former)), Connect(repository, deploy=True)]
    owner = _checked_owner(changes.former_owner or repository.owner)
    name = _checked_name(changes.former_name or repository.name)
    if (owner.lower(), name.lower()) == (repository.owner.lower(), repository.name.lower()):
        return []
    return [Connect(repository, deploy=True), Disconnect(owner, name, repository.id)]


def _check(event: payloads.CheckEvent) -> list[Deed]:
    check = event.check_run or event.check_suite
    if event.action != "rerequested" or check is None:
        return []
    repository = _known(event.repository)
    return [Rerun(repository.owner, repository.name, check_sha(check.head_sha))]


def _known(repository: payloads.Repository) -> Known:
    owner, _, name = repository.full_name.partition("/")
    if repository.owner is not None and repository.owner.login.lower() != owner.lower():
        raise BadInput(f"the repository {repository.full_name[:200]!r} is not its owner's")
    if repository.name != name:
        raise BadInput(f"the repository {repository.full_name[:200]!r} is not called {repository.name[:100]!r}")
    if repository.id <= 0:
        raise BadInput("the repository has no number")
    branch = check_branch(repository.default_branch) if repository.default_branch else ""
    number = repository.owner.id if repository.owner is not None else 0
    return Known(repository.id, _checked_owner(owner), _checked_name(name), branch, number)


def _checked_owner(owner: str) -> str:
    if not _OWNER.fullmatch(owner):
        raise BadInput(f"owner {owner[:60]!r} is not a GitHub login")
    return owner


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (".", "..") or name.startswith("-"):
        raise BadInput(f"repository {name[:60]!r} is not a name that GitHub gives")
    return name


def _line(text: str) -> str:
    """Its first line, printable, at most 200 characters."""
    first = (text.strip().splitlines() or [""])[0]
    return "".join(c for c in first if c.isprintable())[:200]


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"the webhook's body is not what GitHub sends: {error}") from None
    except RecursionError:
        raise BadInput("the webhook's body is nested too deeply") from None
