"""A Kubernetes API that has too much to do: how often it is asked again."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_server import ObjectServer

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.objects import Ignored
from stoker_sdk.errors import StokerError


async def test_one_that_says_ask_at_once_is_asked_less_and_less_often(store: ObjectServer, tmp_path: Path) -> None:
    store.overloaded = True
    api = await open_api(store.kubeconfig(tmp_path))
    try:
        with pytest.raises(StokerError, match="overloaded"):
            await api.get("/api/v1/namespaces/fn/pods/one", Ignored, "pod")
    finally:
        await api.close()
    assert 3 <= api.requests <= 8  # 0.25, 0.5, 1, 2, 4 s, each less some chance
