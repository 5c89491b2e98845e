"""The `Function` resource of Kubernetes: a function as `kubectl` and Git repositories hold it (contract section 10.4).

Both ways lose nothing: what is asked of the API and what is read back from a resource are the same function.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources

GROUP: Final = "openfaas.com"
VERSIONS: Final = ("v1", "v1alpha2")
"""Both have one schema; the first is how the cluster stores them."""
KIND: Final = "Function"


class _Spec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    name: str = ""
    image: str = ""
    handler: str = ""
    environment: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    secrets: list[str] | None = None
    constraints: list[str] | None = None
    limits: Resources | None = None
    requests: Resources | None = None
    read_only_root_filesystem: bool = False


_RENAMED: Final = {"name": "service", "handler": "env_process", "environment": "env_vars"}
"""Our names for the fields of a resource, where they differ."""
_FIELDS: Final = {name: _RENAMED.get(name, name) for name in _Spec.__struct_fields__}


def resource_of(spec: FunctionSpec, group: str = GROUP, version: str = VERSIONS[0]) -> dict[str, Any]:
    """The resource for a function."""
    asked = _Spec(**{name: getattr(spec, ours) for name, ours in _FIELDS.items()})
    return {
        "apiVersion": f"{group}/{version}",
        "kind": KIND,
        "metadata": {"name": spec.service, "namespace": spec.key.namespace},
        "spec": msgspec.to_builtins(asked),
    }


def spec_of(name: str, namespace: str, asked: object) -> FunctionSpec:
    """The function that the resource of this name asks for, checked; `asked` is its `spec`. Raises `BadInput`."""
    given = {key: value for key, value in asked.items() if value is not None} if isinstance(asked, dict) else asked
    try:
        read = msgspec.convert(given, _Spec)
    except msgspec.ValidationError as error:
        raise BadInput(f"spec: {error}") from error
    if read.name != name:
        raise BadInput(f"spec.name is {read.name[:80]!r} and metadata.name {name[:80]!r}: make them the same")
    spec = FunctionSpec(**{ours: getattr(read, field) for field, ours in _FIELDS.items()}, namespace=namespace)
    spec.check()
    return spec
