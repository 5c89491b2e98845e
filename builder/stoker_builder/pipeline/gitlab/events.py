"""What a push hook asks for: a pure function from its bytes to a push."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stoker_builder.pipeline.git import check_branch, check_sha
from stoker_sdk.errors import BadInput
from stoker_sdk.runs import GONE, Push

FORGE: Final = "gitlab"
ID: Final = "id"
"""In `Push.details`: the project's number."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_HEADS: Final = "refs/heads/"


class _Project(msgspec.Struct, frozen=True):
    id: int
    path_with_namespace: str
    default_branch: str = ""


class _Commit(msgspec.Struct, frozen=True):
    id: str = ""
    message: str = ""


class _PushHook(msgspec.Struct, frozen=True):
    ref: str
    after: str
    project: _Project
    user_username: str = ""
    commits: list[_Commit] = []


def read_push(body: bytes) -> Push | None:
    """None for tags and for branches that are not the default one. Raises `BadInput`."""
    try:
        hook = msgspec.json.decode(body, type=_PushHook)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"the hook's body is not what GitLab sends: {error}") from None
    except RecursionError:
        raise BadInput("the hook's body is nested too deeply") from None
    owner, name = split_project(hook.project.path_with_namespace)
    if hook.project.id <= 0:
        raise BadInput("the project has no number")
    if not hook.ref.startswith(_HEADS):
        return None
    branch = check_branch(hook.ref.removeprefix(_HEADS))
    if branch != hook.project.default_branch:
        return None
    sha = check_sha(hook.after) if hook.after.strip("0") else GONE
    message = next((commit.message for commit in hook.commits if commit.id == sha), "")
    details = {ID: str(hook.project.id)}
    return Push(FORGE, owner, name, branch, sha, by=_line(hook.user_username), subject=_line(message), details=details)


def split_project(path: str) -> tuple[str, str]:
    """Owner and name of `GROUP/PROJECT`. Raises `BadInput`."""
    owner, _, name = path.partition("/")
    if "/" in name:
        raise BadInput(f"the project {path[:200]!r} is in a group of a group: only GROUP/PROJECT can be deployed")
    for text in (owner, name):
        if not _NAME.fullmatch(text) or ".." in text or text.endswith("."):
            raise BadInput(f"the project {path[:200]!r} is not a path that GitLab gives")
    return owner, name


def _line(text: str) -> str:
    """Its first line, printable, at most 200 characters."""
    first = (text.strip().splitlines() or [""])[0]
    return "".join(c for c in first if c.isprintable())[:200]
