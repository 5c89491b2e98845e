"""A disk that is nearly full: what no function uses goes sooner, what one uses stays."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from small_disk import fill, small_disk

from stoker_gateway.providers.local.collector import KEEP_SECONDS_FULL, Collector
from stoker_sdk.data_dir import DataDir

MIB = 1 << 20
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")]


def test_unused_artefacts_go_sooner_and_used_ones_stay(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 100 * MIB):
        data = DataDir(tmp_path / "data")
        for digest, seconds in (("used", 2 * KEEP_SECONDS_FULL), ("old", 2 * KEEP_SECONDS_FULL), ("young", 1.0)):
            data.artefact(digest).mkdir(parents=True)
            manifest = {"name": "f", "environment": f"of-{digest}"}
            (data.artefact(digest) / "artefact.json").write_text(json.dumps(manifest))
            data.environment(f"of-{digest}").mkdir(parents=True)
            for folder in (data.artefact(digest), data.environment(f"of-{digest}")):
                os.utime(folder, (time.time() - seconds,) * 2)
        collector = Collector(data, lambda: {"used"})
        asyncio.run(collector.collect())
        assert sorted(path.name for path in data.artefacts.iterdir()) == ["old", "used", "young"]
        fill(data.path, 5 * MIB)
        asyncio.run(collector.collect())
        assert sorted(path.name for path in data.artefacts.iterdir()) == ["used", "young"]
        assert sorted(path.name for path in data.environments.iterdir()) == ["of-used", "of-young"]
