"""Who sees what, as pure functions of a session and a function or run. Owners are compared whole, in lower case."""

from __future__ import annotations

from typing import Final

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionStatus
from stoker_sdk.origin import OWNER, Origin, origin_of
from stoker_sdk.runs import ACCOUNT, Run, account_of

_FORGE: Final = "github"
"""Whose accounts people sign in with."""


class Session(msgspec.Struct, frozen=True, tag=True):
    """Who is signed in: the platform's administrator, who sees everything, or somebody who sees their owners' things.

    `until` is Unix time, in seconds. `owners` are logins of GitHub with the accounts' numbers: a name alone may be
    somebody else's by now.
    """

    id: str
    user: str
    until: int
    is_admin: bool = False
    owners: dict[str, int] = {}

    def may_see(self, owner: str, account: str = "") -> bool:
        """`owner` is empty for what has none, which is the administrator's alone. `account` is empty for what no forge
        has vouched for, such as pushes to our own remote: there the name decides.
        """
        number = self.owners.get(owner.lower())
        return self.is_admin or (number is not None and account in ("", account_of(_FORGE, number)))

    def may_see_function(self, status: FunctionStatus) -> bool:
        return self.may_see(owner_of(status), (status.annotations or {}).get(ACCOUNT, ""))

    def may_see_run(self, run: Run) -> bool:
        return self.may_see(run.push.owner, run.account)


def origin_or_none(status: FunctionStatus) -> Origin | None:
    """Where the function comes from; None for one that was deployed by hand, or with annotations nobody understands."""
    try:
        return origin_of(status.annotations)
    except BadInput:
        return None


def owner_of(status: FunctionStatus) -> str:
    """In lower case; empty for a function that has none."""
    return (status.annotations or {}).get(OWNER, "").lower()
