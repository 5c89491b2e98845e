"""The provider of a cluster for the contract tests: real pods from real images, called at their own addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from running_cluster import Cluster

from stoker_gateway.providers.base import RouteListener
from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.operator.provider import OperatorProvider
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import DEFAULT_NAMESPACE, FunctionKey

GROUP = "contract-test.stoker.dev"
FINE = """
sickness = []

def handle(req):
    if req.startswith("sickness:"):
        sickness[:] = [text for text in [req.removeprefix("sickness:")] if text]
    else:
        print(req)
    return "taken"

def health():
    if sickness:
        raise OSError(sickness[0])
"""
BROKEN = "raise ImportError('broken on purpose')\n"


class KubernetesHarness:
    def __init__(self, cluster: Cluster, provider: KubernetesProvider, fine: str, broken: str) -> None:
        self._cluster = cluster
        self.provider = provider
        self._fine, self._broken = fine, broken

    def spec(self, name: str = "greet", **fields: Any) -> FunctionSpec:
        return FunctionSpec(**({"service": name, "image": self._fine, "namespace": DEFAULT_NAMESPACE} | fields))

    def broken_spec(self, name: str = "greet") -> FunctionSpec:
        return self.spec(name, image=self._broken)

    async def print(self, key: FunctionKey, text: str) -> None:
        await post(self.provider.route(key).targets[0].address, text)

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        where = ("get", "pod", instance, "-n", key.namespace, "-o", "jsonpath={.status.podIP}")
        host = await asyncio.to_thread(self._cluster.kubectl, *where)
        await post(f"tcp:{host}:8080", f"sickness:{reason}")


class Operated(OperatorProvider):
    """With its operator, and without what else a leader does: nothing is undone behind the tests' back."""

    async def start(self, listener: RouteListener) -> None:
        await super().start(listener)
        self._operating = asyncio.ensure_future(self.operator.run())

    async def close(self) -> None:
        self._operating.cancel()
        await super().close()


async def post(address: str, text: str) -> None:
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write(f"{head}{text}".encode())
    assert b"taken" in await reader.read()
    writer.close()


@asynccontextmanager
async def kubernetes_harness(cluster: Cluster) -> AsyncIterator[KubernetesHarness]:
    provider = KubernetesProvider(await open_api(cluster.kubeconfig), (DEFAULT_NAMESPACE,), Registries())
    async with _harness(cluster, provider) as made:
        yield made


@asynccontextmanager
async def operator_harness(cluster: Cluster) -> AsyncIterator[KubernetesHarness]:
    """In operator mode, where the API writes Function resources; the cluster has their CRD."""
    api = await open_api(cluster.kubeconfig)
    await asyncio.to_thread(cluster.kubectl, "delete", f"functions.{GROUP}", "--all", "-n", DEFAULT_NAMESPACE)
    async with _harness(cluster, Operated(api, (DEFAULT_NAMESPACE,), Registries(), GROUP)) as made:
        yield made


@asynccontextmanager
async def _harness(cluster: Cluster, provider: KubernetesProvider) -> AsyncIterator[KubernetesHarness]:
    fine = await asyncio.to_thread(cluster.function, "contract-fine", FINE)
    broken = await asyncio.to_thread(cluster.function, "contract-broken", BROKEN)
    await asyncio.to_thread(cluster.ensure_namespace, DEFAULT_NAMESPACE)
    await asyncio.to_thread(_empty, cluster)
    try:
        yield KubernetesHarness(cluster, provider, fine, broken)
    finally:
        await provider.close()
        await asyncio.to_thread(_empty, cluster)


def _empty(cluster: Cluster) -> None:
    cluster.kubectl("delete", "deployments,services", "--all", "-n", DEFAULT_NAMESPACE)
    cluster.kubectl("delete", "pods", "--all", "-n", DEFAULT_NAMESPACE, "--grace-period=0", "--force")
