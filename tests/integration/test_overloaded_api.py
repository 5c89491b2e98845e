"""A Kubernetes API that has too much to do: how often it is asked again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from object_server import ObjectServer

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.objects import Ignored
from stoker_sdk.errors import StokerError


@pytest.fixture
async def server() -> AsyncIterator[ObjectServer]:
    one = await ObjectServer().start()
    yield one
    await one.stop()


async def test_one_that_says_ask_at_once_is_asked_less_and_less_often(server: ObjectServer, tmp_path: Path) -> None:
    server.overloaded = True
    api = await open_api(server.kubeconfig(tmp_path))
    try:
        with pytest.raises(StokerError, match="overloaded"):
            await api.get("/api/v1/namespaces/fn/pods/one", Ignored, "pod")
    finally:
        await api.close()
    assert 3 <= api.requests <= 8  # 0.25, 0.5, 1, 2, 4 s, each less some chance
