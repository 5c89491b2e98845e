"""Where the cluster keeps things: paths of its API."""

from __future__ import annotations

from stoker_sdk.names import FunctionKey


def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def deployment(key: FunctionKey) -> str:
    return f"{deployments(key.namespace)}/{key.name}"


def services(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def service(key: FunctionKey) -> str:
    return f"{services(key.namespace)}/{key.name}"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def secret(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def functions(group: str, namespace: str) -> str:
    return f"/apis/{group}/v1/namespaces/{namespace}/functions"


def function(group: str, key: FunctionKey) -> str:
    return f"{functions(group, key.namespace)}/{key.name}"
