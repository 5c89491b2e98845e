"""What others than the platform have changed in a function's objects: pure values.

Beside each Deployment lies, as an annotation, what was written into it. So what is there can be compared with what was
asked for then, whatever this version of the platform or its settings would write today: an upgrade is no drift.
Only what was written counts. What others add to objects is theirs, but for the entries of lists.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from stoker_gateway.providers.kubernetes.objects import Deployment, Manifest
from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_quantity

_FIELDS: Final = ("strategy", "progressDeadlineSeconds", "template")
"""Of a Deployment's spec. Replicas and restarts are whose they were last."""
_MOST_TEXT: Final = 4 * 1024 * 1024
_MOST_NAMED: Final = 5


def packed_record(manifest: Manifest, room: int, without: str) -> str:
    """What the manifest of a Deployment asks for, in at most `room` bytes; empty where that is not enough.

    `without` is an annotation of the pods that others may set.
    """
    spec = {name: manifest["spec"][name] for name in _FIELDS}
    template = spec["template"]
    annotations = {key: value for key, value in template["metadata"]["annotations"].items() if key != without}
    spec["template"] = template | {"metadata": template["metadata"] | {"annotations": annotations}}
    record = {"metadata": {"labels": manifest["metadata"]["labels"]}, "spec": spec}
    text = base64.b64encode(zlib.compress(msgspec.json.encode(record, order="sorted"), 9)).decode()
    return text if len(text) <= room else ""


def unpacked_record(text: str) -> Manifest:
    """The fields that were written, as a merge patch has them; empty for what cannot be read."""
    try:
        record = msgspec.json.decode(zlib.decompressobj().decompress(base64.b64decode(text), _MOST_TEXT))
    except (ValueError, zlib.error, msgspec.DecodeError):
        return {}
    return record if isinstance(record, dict) else {}


def drift_of(deployment: Deployment, record: str) -> tuple[str, ...]:
    """The fields that are not as they were written, such as `spec.template.spec.containers.0.image`."""
    return tuple(differences(unpacked_record(record), _there(deployment))) if record else ()


def sum_of(deployment: Deployment) -> str:
    """Of all that `drift_of` looks at, as it is: the same after scaling."""
    return hashlib.sha256(msgspec.json.encode(_there(deployment), order="sorted")).hexdigest()


def _there(deployment: Deployment) -> Manifest:
    spec, template = deployment.spec, deployment.spec.template
    return {
        "metadata": {"labels": deployment.metadata.labels},
        "spec": {
            "strategy": spec.strategy,
            "progressDeadlineSeconds": spec.progress_deadline_seconds,
            "template": {
                "metadata": {"labels": template.metadata.labels, "annotations": template.metadata.annotations},
                "spec": template.spec,
            },
        },
    }


def differences(written: Any, there: Any, path: str = "") -> Iterator[str]:
    """The paths at which `there` is not as `written`. Kubernetes leaves out what is empty."""
    if isinstance(written, Mapping) and isinstance(there, Mapping):
        for name, value in written.items():
            yield from differences(value, there.get(name), f"{path}.{name}" if path else name)
    elif isinstance(written, list) and isinstance(there, list) and len(written) == len(there):
        for number, (one, other) in enumerate(zip(written, there, strict=True)):
            yield from differences(one, other, f"{path}.{number}")
    elif written != there and not _is_empty(written, there) and not _same_quantity(path, written, there):
        yield path


def named(fields: tuple[str, ...]) -> str:
    """In a line of a bounded length."""
    more = len(fields) - _MOST_NAMED
    return ", ".join(fields[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_empty(written: Any, there: Any) -> bool:
    return there is None and not written and written is not False


def _same_quantity(path: str, written: Any, there: Any) -> bool:
    """Kubernetes writes `1024Mi` as `1Gi`."""
    try:
        return ".resources." in path and parse_quantity(str(written)) == parse_quantity(str(there))
    except BadInput:
        return False
