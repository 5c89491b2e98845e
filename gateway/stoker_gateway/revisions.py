"""The history of a function: what its last deploys asked for, so that one can be live again without a build.

Pure values, the same for every provider; where they are kept is the provider's. A history is in order, the oldest
first, and its last revision is what is asked for now. A rollback is a revision of its own, with the content of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from stoker_sdk.errors import NotFound
from stoker_sdk.function import Condition, FunctionSpec
from stoker_sdk.messages import Revision
from stoker_sdk.names import FunctionKey

MAX_LENGTH: Final = 1024 * 1024
"""Bytes that the earlier revisions may have in all: they are written with each change of the function."""


class Kept(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One revision: all that is needed to put it live again.

    `image` is what the tag of `spec` meant then, where that was asked. `changed` names the fields that differ from the
    revision before, as `changes` does; `rollback_to` is the revision whose content this one repeats, `automatic` if
    nobody asked for that. `failed`: it could not start, and another one took over.
    """

    number: int
    created_at: str
    spec: FunctionSpec
    image: str = ""
    changed: list[str] = []
    rollback_to: int = 0
    automatic: bool = False
    failed: bool = False


def extended(history: Sequence[Kept], new: Kept, *, failed: bool, serving: int) -> list[Kept]:
    """The history with one more revision, and without the oldest ones that are too many or too long.

    `failed` is whether the last one of before has failed; the new one and the one that is `serving` stay in any case,
    and what the platform has undone, as long as that is the last that happened.
    """
    before = history[-1]
    last = msgspec.structs.replace(before, failed=failed)
    grown = [*history[:-1], last, msgspec.structs.replace(new, changed=changes(before, new))]
    stay = {new.number, serving} | ({before.number} if new.automatic else set())
    others = [one for one in reversed(grown) if one.number not in stay]
    places = max(0, new.spec.kept_revisions - (len(grown) - len(others)))
    lengths = accumulate(len(msgspec.json.encode(one)) for one in others)
    stay |= {one.number for one, length in zip(others[:places], lengths, strict=False) if length <= MAX_LENGTH}
    return [one for one in grown if one.number in stay]


def changes(before: Kept, after: Kept) -> list[str]:
    """Which fields of the function differ, in order, as `image`, `envVars.LEVEL` or `limits.memory`; never values."""
    old, new = _fields(before), _fields(after)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _fields(kept: Kept) -> dict[str, Any]:
    asked: dict[str, Any] = msgspec.to_builtins(kept.spec)
    return dict(_flat(asked | {"image": (kept.spec.image, kept.image)}))


def _flat(asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in asked.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        elif value:
            yield name, value


def find(key: FunctionKey, history: Sequence[Kept], number: int) -> Kept:
    """The revision of that number. Raises `NotFound`, with those that there are."""
    for kept in history:
        if kept.number == number:
            return kept
    there = ", ".join(str(kept.number) for kept in history)
    raise NotFound(f"function {key.name!r} has no revision {number} (any more): there are {there}")


def with_content_of(history: Sequence[Kept], number: int) -> Kept | None:
    """The revision of that number, or the newest one to which the platform has put its content back."""
    for kept in reversed(history):
        if kept.number == number or (kept.automatic and kept.rollback_to == number):
            return kept
    return None


def earlier(key: FunctionKey, history: Sequence[Kept]) -> Kept:
    """What a rollback without a number goes to: the newest other version that did not fail. Raises `NotFound`."""
    last = history[-1]
    for kept in reversed(history[:-1]):
        if not kept.failed and (kept.spec, kept.image) != (last.spec, last.image):
            return kept
    raise NotFound(f"function {key.name!r} has no earlier revision that it could go back to: deploy another version")


def listed(history: Sequence[Kept], condition: Condition) -> list[Revision]:
    """The history as it is answered, given how the function stands now."""
    last = history[-1].number
    serving = condition.serving or (last if condition.state == "zero" else 0)  # the next call starts that one
    return [
        Revision(
            number=kept.number,
            created_at=kept.created_at,
            image=kept.spec.image,
            digest=kept.image.rpartition("@")[2] if "@" in kept.image else "",
            changed=kept.changed,
            rollback_to=kept.rollback_to,
            automatic=kept.automatic,
            serving=kept.number == serving,
            failed=condition.state == "failed" if kept.number == last else kept.failed,
        )
        for kept in history
    ]
