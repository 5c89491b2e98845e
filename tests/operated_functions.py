"""The operator on what keeps objects as a cluster does (`store`), and what is asked of both.

It can make requests late; what a real cluster makes of it all is in tests/cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from object_server import Object, ObjectServer

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.operator.provider import OperatorProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.routes import Route
from stoker_sdk.function import FunctionSpec
from stoker_sdk.function_resource import GROUP, resource_of
from stoker_sdk.names import FunctionKey

IMAGE = "localhost:1/greet@sha256:" + "a" * 64
DEPLOYMENTS, SERVICES = "/apis/apps/v1/namespaces/fn/deployments", "/api/v1/namespaces/fn/services"
FUNCTIONS = f"/apis/{GROUP}/v1/namespaces/fn/functions"
PODS, EVENTS = "/api/v1/namespaces/fn/pods", "/api/v1/namespaces/fn/events"
GREET = FunctionKey("fn", "greet")


def spec(name: str = "greet", **fields: Any) -> FunctionSpec:
    return FunctionSpec(**({"service": name, "image": IMAGE, "namespace": "fn"} | fields))


async def nobody(key: FunctionKey, route: Route | None) -> None:
    pass


@asynccontextmanager
async def operated(server: ObjectServer, folder: Path, count: int = 1) -> AsyncIterator[list[OperatorProvider]]:
    """So many platforms of the same cluster, all of which think that they lead."""
    made, running = [], []
    for _ in range(count):
        api = await open_api(server.kubeconfig(folder))
        made.append(OperatorProvider(api, ("fn",), Registries(), GROUP))
        await made[-1].start(nobody)
        running.append(asyncio.ensure_future(made[-1].operator.run()))
    try:
        yield made
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for one in made:
            await one.close()


def ask(server: ObjectServer, name: str = "greet", **fields: Any) -> Object:
    """What kubectl apply does."""
    path = f"{FUNCTIONS}/{name}"
    body = resource_of(spec(name, **fields))
    old = server.objects.get(path, {"metadata": {}})
    kept = {key: old["metadata"][key] for key in ("annotations",) if key in old["metadata"]}
    return server.put(path, body | {"metadata": kept} | ({"status": old["status"]} if "status" in old else {}))


async def until(condition: Callable[[], object], what: str = "it") -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def ready(server: ObjectServer, name: str = "greet") -> Object:
    status = server.objects[f"{FUNCTIONS}/{name}"].get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    found: Object = conditions[0] if conditions else {}
    return found


def revision(server: ObjectServer, name: str = "greet") -> int:
    made = server.objects.get(f"{DEPLOYMENTS}/{name}")
    return int(made["metadata"]["annotations"]["internal.stoker.dev/revision"]) if made else 0


def is_told(server: ObjectServer, name: str = "greet") -> bool:
    function = server.objects[f"{FUNCTIONS}/{name}"]
    return bool(function.get("status", {}).get("observedGeneration") == function["metadata"]["generation"])


def by_hand(server: ObjectServer, image: str) -> None:
    """What kubectl edit does to a Deployment."""
    body = deepcopy(server.objects[f"{DEPLOYMENTS}/greet"])
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    server.put(f"{DEPLOYMENTS}/greet", body)


def image(server: ObjectServer) -> str:
    found: str = server.objects[f"{DEPLOYMENTS}/greet"]["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def told_events(server: ObjectServer) -> list[tuple[str, str, str]]:
    """Kind of the object, reason and message."""
    found = [one for path, one in server.objects.items() if path.startswith(EVENTS)]
    return [(one["involvedObject"]["kind"], one["reason"], one["message"]) for one in found]
