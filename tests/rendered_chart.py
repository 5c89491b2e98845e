"""The chart, rendered by Helm's own library, without a cluster: values in, documents out.

found = render({"gateway": {"replicas": 2}})
found["Deployment/stoker-gateway"]["spec"]["replicas"]
found["Role/openfaas-fn/stoker-gateway"]["rules"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml
from helm_python import _native

CHART = Path(__file__).parent.parent / "charts" / "stoker"
NEEDED: dict[str, Any] = {"image": {"repository": "registry.example.org/stoker"}}
"""The one value that has no default."""
BUILDER: dict[str, Any] = {
    "enabled": True,
    "image": {"repository": "registry.example.org/stoker-builder"},
    "images": {"prefix": "registry.example.org/pushed"},
    "buildkit": {"address": "tcp://buildkitd.builds:1234"},
}
"""The least that a builder needs."""
NAMESPACE = "openfaas"
CURRENT = "v1.34.0"
OLDEST = "v1.20.2"

Document = dict[str, Any]
Documents = dict[str, Document]
"""By `KIND/NAME`, or `KIND/NAMESPACE/NAME` where that is not the release's own namespace."""


def render(
    values: Mapping[str, Any] | None = None, *, release: str = "stoker", kube_version: str = CURRENT
) -> Documents:
    """What would be installed. Raises `helm_python.HelmError`."""
    options = {"name": release, "namespace": NAMESPACE, "kube_version": kube_version}
    with helm_python.Chart.load(CHART) as chart:
        given = json.dumps(NEEDED | dict(values or {}))
        # The library takes the cluster's version here, which the signature of `Chart.render` leaves out.
        rendered = json.loads(_native.call_string("helm_render", chart._raw(), given, json.dumps(options)))
    return by_name("\n---\n".join(text for path, text in rendered.items() if path.endswith(".yaml")))


def by_name(manifest: str, own: str = NAMESPACE) -> Documents:
    """The documents of a manifest; no object may be there twice. `own` is the release's namespace."""
    found: Documents = {}
    for document in yaml.safe_load_all(manifest):
        if document:
            name, place = document["metadata"]["name"], document["metadata"].get("namespace", own)
            key = f"{document['kind']}/{name}" if place == own else f"{document['kind']}/{place}/{name}"
            assert key not in found, f"{key} is there twice"
            found[key] = document
    return found


def pods(documents: Documents) -> Documents:
    """The pod templates of the workloads."""
    kinds = ("Deployment", "StatefulSet")
    return {key: one["spec"]["template"] for key, one in documents.items() if one["kind"] in kinds}
