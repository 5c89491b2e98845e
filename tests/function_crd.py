"""The CRD of Function resources in a cluster of the tests, as the chart makes it, under a group of the test's own.

with function_crd(cluster, "my-test.stoker.dev"):
    cluster.kubectl("get", "functions.my-test.stoker.dev", "-A")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from running_cluster import Cluster


@contextmanager
def function_crd(cluster: Cluster, group: str) -> Iterator[None]:
    """With the definition go all resources that are left of it."""
    pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
    from rendered_chart import render

    name = f"functions.{group}"
    documents = render({"operator": {"enabled": True, "group": group}})
    cluster.kubectl("apply", "-f", "-", input=json.dumps(documents[f"CustomResourceDefinition/{name}"]))
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
        yield
    finally:
        cluster.kubectl("delete", "crd", name)
