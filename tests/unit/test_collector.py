from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from stoker_gateway.providers.local.collector import Collector
from stoker_sdk.data_dir import DataDir

OLD = time.time() - 1000.0


def test_what_no_function_uses_goes_when_it_is_old_with_its_environment(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    for digest, environment in (("used", "e1"), ("unused", "e2"), ("young", "e3")):
        _artefact(data, digest, environment)
    for path in (*data.artefacts.iterdir(), *data.environments.iterdir()):
        os.utime(path, (OLD, OLD))
    os.utime(data.artefact("young"))
    asyncio.run(Collector(data, lambda: {"used"}, keep=500.0).collect())
    assert {path.name for path in data.artefacts.iterdir()} == {"used", "young"}
    assert {path.name for path in data.environments.iterdir()} == {"e1", "e3"}


def test_nothing_goes_before_its_time(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    _artefact(data, "unused", "e1")
    asyncio.run(Collector(data, set, keep=500.0).collect())
    assert data.artefact("unused").is_dir() and data.environment("e1").is_dir()


def test_what_a_kill_left_half_removed_goes_the_next_time(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    (data.artefacts / ".trash-gone" / "function").mkdir(parents=True)
    asyncio.run(Collector(data, set).collect())
    assert list(data.artefacts.iterdir()) == []


def test_a_machine_without_builds_has_nothing_to_collect(tmp_path: Path) -> None:
    asyncio.run(Collector(DataDir(tmp_path), set).collect())
    assert list(tmp_path.iterdir()) == []


def _artefact(data: DataDir, digest: str, environment: str) -> None:
    data.artefact(digest).mkdir(parents=True)
    (data.artefact(digest) / "artefact.json").write_text(json.dumps({"name": "f", "environment": environment}))
    data.environment(environment).mkdir(parents=True)
