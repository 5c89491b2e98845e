"""From a function of a stack, and what the command line adds to it, to the body of a deploy request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stoker_sdk.errors import BadInput
from stoker_sdk.function import ANNOTATION_PREFIX, FunctionSpec, Resources
from stoker_sdk.stack import Stack, StackFunction

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_NOTHING = Resources()


@dataclass(frozen=True)
class Overrides:
    """What flags say. Maps are merged over the stack's, one value wins over the stack's (contract section
    9.2).
    """

    image: str = ""
    namespace: str = ""
    fprocess: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    limits: Resources = _NOTHING
    requests: Resources = _NOTHING
    readonly: bool = False


def function_spec(function: StackFunction, overrides: Overrides = Overrides()) -> FunctionSpec:
    """The deploy request for a function. Nothing is checked beyond what reading the stack checked."""
    settings = {ANNOTATION_PREFIX + key: value for key, value in function.settings.items()}
    return FunctionSpec(
        service=function.name,
        image=tagged(overrides.image or function.image),
        namespace=overrides.namespace or function.namespace,
        env_process=overrides.fprocess or function.fprocess,
        env_vars={**function.environment, **overrides.environment} or None,
        constraints=list(function.constraints or overrides.constraints) or None,
        secrets=list(dict.fromkeys((*function.secrets, *overrides.secrets))) or None,
        labels={**function.labels, **overrides.labels},
        annotations={**settings, **function.annotations, **overrides.annotations},
        limits=_merged(function.limits, overrides.limits),
        requests=_merged(function.requests, overrides.requests),
        read_only_root_filesystem=function.readonly_root_filesystem or overrides.readonly,
    )


def tagged(image: str) -> str:
    """The image with `:latest` when it has neither tag nor digest (contract section 9.2)."""
    last = image.rpartition("/")[2]
    return image if not image or ":" in last or "@" in last else f"{image}:latest"


def prefixed(image: str, prefix: str) -> str:
    """The image under another registry and owner: what stands before its last `/` gives way to the prefix.

    Raises `BadInput` for a prefix that no image can have.
    """
    name = f"{prefix.rstrip('/')}/{image.rpartition('/')[2]}"
    if not _IMAGE.fullmatch(name):
        raise BadInput(f"prefix {prefix[:80]!r} is not allowed: it is the beginning of an image, such as ghcr.io/me")
    return name


def with_prefix(stack: Stack, prefix: str) -> Stack:
    """The stack with the images of what is built under the prefix; those that others have made keep their names."""

    def moved(function: StackFunction) -> StackFunction:
        if not function.is_built_here:
            return function
        return replace(function, image=prefixed(function.image or function.name, prefix))

    return replace(stack, functions=tuple(map(moved, stack.functions)))


def has_digest(image: str) -> bool:
    """Whether the image says exactly which one it is, so that nothing has to be built to deploy it."""
    return "@sha256:" in image


def _merged(stack: Resources | None, flags: Resources) -> Resources | None:
    base = stack or _NOTHING
    merged = Resources(
        memory=flags.memory or base.memory,
        cpu=flags.cpu or base.cpu,
        nvidia_gpu=base.nvidia_gpu,
        amd_gpu=base.amd_gpu,
        intel_gpu=base.intel_gpu,
    )
    return None if merged == _NOTHING else merged
