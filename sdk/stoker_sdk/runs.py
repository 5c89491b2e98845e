"""Pushes and runs: what came from a git repository, and what became of it. The wire format of `/system/runs`, too.

push → run → one result for each function. Times are RFC 3339, ids are whole numbers that only grow.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stoker_sdk.function import ANNOTATION_PREFIX

QUEUED: Final = "queued"
RUNNING: Final = "running"
SUPERSEDED: Final = "superseded"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
OPEN: Final = frozenset((QUEUED, RUNNING))
STATES: Final = (QUEUED, RUNNING, SUPERSEDED, SUCCEEDED, FAILED, CANCELLED)

SHA: Final = f"{ANNOTATION_PREFIX}sha"
RUN: Final = f"{ANNOTATION_PREFIX}run"
PLACE: Final = f"{ANNOTATION_PREFIX}push"
ACCOUNT: Final = f"{ANNOTATION_PREFIX}account"
"""Annotations of a function that a run deployed, beside those of `origin`: its commit, the run, `FORGE BRANCH` (a
default branch has no other trace of its name), and the account whose it is (`Run.account`)."""

GONE: Final = ""
"""The `sha` of a push that says: the branch, or the repository, is gone. Its functions are removed."""


OWNER_ID: Final = "owner-id"
"""In `Push.details`: the number of the owner's account at the forge, where the forge told it with the push."""

FORK: Final = "fork"
"""In `Push.details` of a commit that is a stranger's."""


class Push(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A branch is at a commit now. `forge` says who keeps the repository: `stoker` (our own remote), `github`, ...

    `sha` is 40 or 64 hex digits, or `GONE`. `default` tells the branch that has the plain addresses; others, and pull
    requests (`pull` is the number), have addresses of their own. `details` is what the forge needs again later, such as
    an installation's id; it is stored, so nothing secret.
    """

    forge: str
    owner: str
    repository: str
    branch: str
    sha: str
    default: bool = True
    pull: int = 0
    by: str = ""
    subject: str = ""
    details: dict[str, str] = {}

    @property
    def place(self) -> tuple[str, str, str, str, int]:
        """What a newer push replaces: one branch, or pull request, of one repository."""
        return (self.forge, self.owner, self.repository, self.branch, self.pull)

    @property
    def is_strangers(self) -> bool:
        """Whether it is a fork's commit, which gets no secret."""
        return FORK in self.details

    @property
    def home(self) -> tuple[str, str, str]:
        """Its repository. Of one repository, one run goes at a time."""
        return (self.forge, self.owner, self.repository)


class FunctionResult(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What a run did to one function of the stack; `name` is that in the stack, `service` the platform's.

    `state` is waiting, building, deploying, deployed, unchanged, removed or failed; `reason` says why it failed, and
    `test` which of its tests did, if one did. `seconds` is how long each stage took: build, tests, deploy (until it is
    stored), ready.
    """

    name: str
    service: str = ""
    state: str = "waiting"
    reason: str = ""
    test: str = ""
    image: str = ""
    url: str = ""
    seconds: dict[str, float] = {}


class Run(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One push on its way. `change` counts every change of it, `reported` is the one that the forge was told last.

    `attempt` is more than 1 where a killed pipeline left it behind; `retry_of` is the run that this one repeats.
    `seconds` is how long each stage took: checkout, stack. Times are to the millisecond. `account` is `FORGE NUMBER`,
    the forge's account that has the owner's name; empty for our own remote, and before the forge was asked.
    """

    id: int
    push: Push
    state: str = QUEUED
    reason: str = ""
    created_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    attempt: int = 1
    retry_of: int = 0
    superseded_by: int = 0
    functions: list[FunctionResult] = []
    seconds: dict[str, float] = {}
    account: str = ""
    change: int = 0
    reported: int = -1

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def title(self) -> str:
        """For people: `me/greet main 3f2a1b0`."""
        push = self.push
        return f"{push.owner}/{push.repository} {push.branch} {push.sha[:7] or '(gone)'}"


class RunLine(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One line of a run's log; `function` is empty where it is about the whole run."""

    at: str
    text: str
    function: str = ""


def account_of(forge: str, number: int) -> str:
    """As in `Run.account`."""
    return f"{forge} {number}"


class OwnerName(msgspec.Struct, frozen=True):
    """Whose an owner's name is on this platform: the account of a forge that pushed first. `id` is its number there."""

    owner: str
    forge: str
    id: int

    @property
    def account(self) -> str:
        return account_of(self.forge, self.id)


class RepositoryName(msgspec.Struct, frozen=True):
    """One repository of the platform's own remote."""

    owner: str
    name: str


class RemovedRepository(msgspec.Struct, frozen=True):
    """`run` is the one that removes its functions."""

    run: int


class SealKey(msgspec.Struct, frozen=True, rename="camel"):
    """What `stoker secret seal` seals with: an X25519 public key, base64 on the wire."""

    public_key: bytes
