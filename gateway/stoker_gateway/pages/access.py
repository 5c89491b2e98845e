"""Who sees what, as pure functions of a session and a function or run. Owners are compared whole, in lower case."""

from __future__ import annotations

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionStatus
from stoker_sdk.origin import OWNER, Origin, origin_of


class Session(msgspec.Struct, frozen=True, tag=True):
    """Who is signed in: the platform's administrator, who sees everything, or somebody who sees their owners' things.

    `until` is Unix time, in seconds.
    """

    id: str
    user: str
    until: int
    is_admin: bool = False
    owners: tuple[str, ...] = ()

    def may_see(self, owner: str) -> bool:
        """`owner` is empty for what has none, which is the administrator's alone."""
        return self.is_admin or (bool(owner) and owner.lower() in self.owners)


def origin_or_none(status: FunctionStatus) -> Origin | None:
    """Where the function comes from; None for one that was deployed by hand, or with annotations nobody understands."""
    try:
        return origin_of(status.annotations)
    except BadInput:
        return None


def owner_of(status: FunctionStatus) -> str:
    """In lower case; empty for a function that has none."""
    return (status.annotations or {}).get(OWNER, "").lower()
