"""What is made for Function resources on a real cluster, in a namespace and under a group of a test's own.

with operated_namespace(cluster, "my-test", "my-test.stoker.dev") as resources:
    with operator(resources, cluster.kubeconfig) as serving:
        resources.apply(resources.resource("hello"))
        resources.until_ready("hello")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from function_crd import function_crd
from running_cluster import Cluster
from running_platform import Platform, wait_for

HANDLER = """
import os

def handle(event, context):
    return os.environ.get("GREETING", "nothing") + " " + event.body.decode()
"""


class Resources:
    """The Function resources of a namespace, and what was made for them, as kubectl sees them."""

    def __init__(self, cluster: Cluster, image: str, namespace: str, group: str) -> None:
        self.cluster = cluster
        self.image = image
        self.namespace = namespace
        self.group = group

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def resource(self, name: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/{version}",
            "kind": "Function",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"name": name, "image": self.image} | spec,
        }

    def apply(self, *resources: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(resources))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        kind = f"functions.{self.group}" if kind == "function" else kind
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else None

    def pods(self, name: str) -> list[str]:
        found = json.loads(self.kubectl("get", "pods", "-l", f"faas_function={name}", "-o", "json"))["items"]
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, name: str, type: str = "Ready") -> dict[str, Any]:
        function = self.get("function", name) or {}
        found = [one for one in function.get("status", {}).get("conditions", []) if one["type"] == type]
        return found[0] if found else {}

    def until_ready(self, name: str, generation: int = 0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            one = self.condition(name)
            late = one.get("observedGeneration", 0) < generation
            return one if one.get("status") == "True" and not late else None

        return wait_for(look, f"{name} to be ready", 60)

    def until_reason(self, name: str, reason: str, words: str, seconds: float = 30) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            one = self.condition(name)
            return one if one.get("reason") == reason and words in one.get("message", "") else None

        try:
            return wait_for(look, f"{name} to say {reason}: {words}", seconds)
        finally:
            print(self.condition(name))

    def until_gone(self, name: str) -> None:
        def look() -> bool:
            return not any(self.get(kind, name) for kind in ("function", "deployment", "service"))

        wait_for(look, f"the end of {name}", 60)

    def delete(self, *names: str) -> None:
        self.kubectl("delete", f"functions.{self.group}", *names, "--ignore-not-found")

    def listed(self, serving: Platform) -> list[str]:
        """The names of all functions, as the API lists them."""
        return [status.name for status in serving.client.functions(self.namespace)]

    def call(self, serving: Platform, name: str) -> str:
        """What it answers to `x`, or its status when that is not 200."""
        answer = serving.call(f"{name}.{self.namespace}", b"x")
        return answer.text if answer.status == 200 else str(answer.status)


@contextmanager
def operated_namespace(cluster: Cluster, namespace: str, group: str) -> Iterator[Resources]:
    cluster.ensure_namespace(namespace)
    image = cluster.function("operator-greeting", HANDLER)
    with function_crd(cluster, group):
        yield Resources(cluster, image, namespace, group)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def platform_flags(namespace: str, group: str = "") -> tuple[str, ...]:
    """Of a platform for that namespace; with a group of resources it is their operator."""
    flags = ("--provider", "kubernetes", "--no-async", "--function-namespace", namespace)
    return (*flags, "--operator", "--crd-group", group) if group else flags


@contextmanager
def operator(resources: Resources, kubeconfig: Path) -> Iterator[Platform]:
    platform = Platform(flags=platform_flags(resources.namespace, resources.group), KUBECONFIG=str(kubeconfig))
    try:
        yield platform.start()
    finally:
        print(platform.log)
        platform.delete()
