"""Where a function comes from - owner, repository, function, branch or pull request - and the names it gets for that.

Two different origins never share a function name. Neither do they share a host and path, but for two repositories of
one owner that have a function of the same name on their default branches: both would be `OWNER.DOMAIN/FUNCTION`, and
the second one's deploy is refused.

A name is its parts joined by `--` where each is plain (letters, digits, single dashes inside), so that none can hold
the joint. Any other, and one that is too long, is `WORDS---HASH`: readable words, and 100 bits of a SHA-256 over the
exact parts. Three dashes in a row stand in no joined name, so the two shapes never meet. Owners and repositories are
taken without case, as GitHub does. No label begins with `xn--`, which would be read as Punycode (RFC 5890).
"""

from __future__ import annotations

import re
from base64 import b32encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.names import MAX_NAME, check_function_name

OWNER: Final = "stoker.dev/owner"
REPOSITORY: Final = "stoker.dev/repository"
FUNCTION: Final = "stoker.dev/function"
BRANCH: Final = "stoker.dev/branch"
PULL: Final = "stoker.dev/pull"
ORIGIN_ANNOTATIONS: Final = (OWNER, REPOSITORY, FUNCTION, BRANCH, PULL)
"""Set by whoever deploys for an owner, such as the git pipeline: what a stack file says there must not be taken."""

RESERVED_LABELS: Final = frozenset(
    ("admin", "api", "auth", "dashboard", "docs", "git", "login", "mail", "ns", "smtp", "status", "stoker", "system")
    + ("webmail", "www")
)
"""Hosts that people take for the platform's own: an owner of such a name gets a label with a hash."""

_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FORGE_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_BRANCH = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]*")
_LIKE_PULL = re.compile(r"pr-[0-9]+")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_JOINT = "--"
_MARK = "---"
_HASH_LENGTH = 20  # characters of base32, so 100 bits
_MAX_BRANCH = 1024


class Origin(NamedTuple):
    """Made by `check_origin`. `branch` is empty for the default branch, `pull` is 0 for none; at most one is set."""

    owner: str
    repository: str
    function: str
    branch: str = ""
    pull: int = 0

    @property
    def name(self) -> str:
        """The function's name on the platform: `FUNCTION--REPOSITORY--OWNER[--VARIANT]`, a DNS-1035 label."""
        pieces = [self.function, self.repository, self.owner, *self._variant]
        return _label("name", pieces, self, letter_first=True)

    @property
    def host_label(self) -> str:
        """Its label under the platform's domain: `OWNER`, or `VARIANT--REPOSITORY--OWNER`."""
        if not self._variant:
            return owner_label(self.owner)
        parts = (self.owner, self.repository, self.branch, self.pull)
        return _label("host", [*self._variant, self.repository, self.owner], parts)

    @property
    def path(self) -> str:
        """Its first segment under the host: `/FUNCTION`."""
        return f"/{self.function}"

    @property
    def annotations(self) -> dict[str, str]:
        """What is stored with the function; `origin_of` reads it back."""
        texts = {OWNER: self.owner, REPOSITORY: self.repository, FUNCTION: self.function}
        if self.branch:
            texts[BRANCH] = self.branch
        if self.pull:
            texts[PULL] = str(self.pull)
        return texts

    @property
    def _variant(self) -> list[str]:
        """The piece of the branch or pull request. A branch that is called like the piece of a pull request is not
        plain.
        """
        if self.pull:
            return [f"pr-{self.pull}"]
        if self.branch:
            return ["" if _LIKE_PULL.fullmatch(self.branch) else self.branch]
        return []


def check_origin(owner: str, repository: str, function: str, *, branch: str = "", pull: int = 0) -> Origin:
    """The origin in the one spelling that it is compared in. Raises `BadInput` for what no forge would call so."""
    for what, text in (("owner", owner), ("repository", repository)):
        if not _FORGE_NAME.fullmatch(text) or text in (".", ".."):
            raise BadInput(f"{what} {text[:80]!r} is not allowed: use 1 to 255 letters, digits, '-', '_' and '.'")
    if len(branch) > _MAX_BRANCH or not _BRANCH.fullmatch(branch):
        raise BadInput(f"branch {branch[:80]!r} is not allowed: no spaces, controls or half characters")
    if pull < 0 or (pull and branch):
        raise BadInput(f"pull request {pull} with branch {branch[:80]!r}: give a number above 0, or a branch")
    return Origin(owner.lower(), repository.lower(), check_function_name(function), branch, pull)


def origin_of(annotations: Mapping[str, str] | None) -> Origin | None:
    """The origin that is stored with a function; None for one that was deployed by hand. Raises `BadInput`."""
    texts = annotations or {}
    if not (OWNER in texts and REPOSITORY in texts and FUNCTION in texts):
        return None
    pull = texts.get(PULL, "")
    if pull and not _NUMBER.fullmatch(pull):
        raise BadInput(f"{PULL} is {pull[:40]!r}: write the pull request's number")
    return check_origin(
        texts[OWNER], texts[REPOSITORY], texts[FUNCTION], branch=texts.get(BRANCH, ""), pull=int(pull or 0)
    )


def owner_label(owner: str) -> str:
    """The owner's label under the platform's domain, in any case of letters."""
    pieces = ["" if owner.lower() in RESERVED_LABELS else owner.lower()]
    return _label("owner", pieces, (owner.lower(),))


def _label(kind: str, pieces: Sequence[str], parts: Sequence[str | int], *, letter_first: bool = False) -> str:
    """The pieces joined if that is a label from which they can be read back, else words and a hash of the parts."""
    joined = _JOINT.join(pieces)
    allowed = not joined.startswith("xn--") and not (letter_first and joined[:1].isdigit())
    if allowed and len(joined) <= MAX_NAME and all(_PLAIN.fullmatch(piece) for piece in pieces):
        return joined
    digest = sha256(msgspec.json.encode([kind, *parts])).digest()
    return _words(parts) + _MARK + b32encode(digest).decode().lower()[:_HASH_LENGTH]


def _words(parts: Sequence[str | int]) -> str:
    """Something to recognise the parts by."""
    text = "-".join(str(part) for part in reversed(parts) if part)
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not words[:1].isalpha() or words == "xn":
        words = f"x-{words}".rstrip("-")
    return words[: MAX_NAME - len(_MARK) - _HASH_LENGTH].rstrip("-")
