"""What a Function resource asks for: a function, and, where the API has written it, the image that it means."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec

from stoker_gateway.providers.kubernetes.manifests import Owner, check_spec
from stoker_gateway.providers.kubernetes.objects import Function, Manifest
from stoker_gateway.providers.kubernetes.standing import Stored
from stoker_gateway.revisions import Kept
from stoker_sdk.function import FunctionSpec
from stoker_sdk.function_resource import KIND, VERSIONS, resource_of, spec_of
from stoker_sdk.names import FunctionKey

MARK: Final = "internal.stoker.dev/release"


class Mark(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What the API knows of a deploy and the fields of the resource cannot say, as an annotation of it.

    It is of one content: `of` is its sum, so that it counts no more when somebody changes the resource otherwise.
    `after` is the function's revision when this was asked for: what had failed before may be tried again. `adopts` is
    the uid of a Deployment that was made without the operator, and becomes the resource's.
    """

    of: str
    image: str
    rollback_to: int = 0
    after: int = 0
    adopts: str = ""


@dataclass(frozen=True)
class Wanted:
    """`image` is empty where nobody has asked the registry yet."""

    spec: FunctionSpec
    image: str = ""
    rollback_to: int = 0
    after: int = 0
    adopts: str = ""

    def is_done(self, stored: Stored) -> bool:
        """Whether nothing is left to do. The registry is asked when the resource changes, not at each look at it."""
        return self._is(stored.spec, stored.image) or self.is_given_up(stored)

    def is_given_up(self, stored: Stored) -> bool:
        """Whether it was tried and failed, so that what served before was put back."""
        undone = stored.rolled_back
        if undone is None or undone.revision <= self.after or self._is(stored.spec, stored.image):
            return False
        return any(one.number == undone.revision and self.is_of(one) for one in stored.revisions())

    def is_of(self, kept: Kept) -> bool:
        """Whether the revision is what is asked for."""
        return self._is(kept.spec, kept.image)

    def _is(self, spec: FunctionSpec, image: str) -> bool:
        return spec == self.spec and self.image in ("", image)


def wanted(function: Function) -> Wanted:
    """Raises `BadInput` for a resource that asks for nothing that can be done."""
    metadata = function.metadata
    spec = spec_of(metadata.name, metadata.namespace, function.spec)
    check_spec(spec)
    try:
        mark = msgspec.json.decode(metadata.annotation(MARK), type=Mark)
    except msgspec.DecodeError:
        return Wanted(spec)
    if mark.of != _sum(spec):
        return Wanted(spec)
    return Wanted(spec, mark.image, mark.rollback_to, mark.after, mark.adopts)


def manifest(asked: Wanted, group: str) -> Manifest:
    """The resource that asks for it."""
    mark = Mark(_sum(asked.spec), asked.image, asked.rollback_to, asked.after, asked.adopts)
    made = resource_of(asked.spec, group)
    made["metadata"]["annotations"] = {MARK: msgspec.json.encode(mark).decode()}
    return made


def key_of(function: Function) -> FunctionKey:
    return FunctionKey(function.metadata.namespace, function.metadata.name)


def owner(function: Function, group: str) -> Owner:
    return Owner(f"{group}/{VERSIONS[0]}", KIND, function.metadata.uid)


def _sum(spec: FunctionSpec) -> str:
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()[:32]
