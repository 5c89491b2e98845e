"""Containers of one machine for the contract tests: a real Docker Engine, called at the containers' own addresses."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kubernetes_harness import BROKEN, FINE, post
from local_harness import Machine, machine
from running_cluster import Cluster

from stoker_gateway.providers.docker.containers import connect
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import DEFAULT_NAMESPACE, FunctionKey


class DockerHarness:
    def __init__(self, cluster: Cluster, machine: Machine, fine: str, broken: str) -> None:
        self._cluster = cluster
        self._fine, self._broken = fine, broken
        host, config = cluster.environment["DOCKER_HOST"], Path("/nonexistent")
        data, run, launcher = machine.data, machine.run, machine.launcher
        self.provider = machine.provider(lambda owners: connect(host, config, data, run, launcher, owners))

    def spec(self, name: str = "greet", **fields: Any) -> FunctionSpec:
        return FunctionSpec(**({"service": name, "image": self._fine, "namespace": DEFAULT_NAMESPACE} | fields))

    def broken_spec(self, name: str = "greet") -> FunctionSpec:
        return self.spec(name, image=self._broken)

    async def print(self, key: FunctionKey, text: str) -> None:
        await post(self.provider.route(key).targets[0].address, text)

    async def set_health(self, key: FunctionKey, instance: str, reason: str) -> None:
        host = await asyncio.to_thread(self._cluster.container_address, instance)
        await post(f"tcp:{host}:8080", f"sickness:{reason}")


@asynccontextmanager
async def docker_harness(cluster: Cluster) -> AsyncIterator[DockerHarness]:
    fine = await asyncio.to_thread(cluster.function, "contract-fine", FINE)
    broken = await asyncio.to_thread(cluster.function, "contract-broken", BROKEN)
    with tempfile.TemporaryDirectory() as folder:
        async with machine(Path(folder)) as one:
            harness = DockerHarness(cluster, one, fine, broken)
            try:
                yield harness
            finally:
                await harness.provider.close()
