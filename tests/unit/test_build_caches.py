"""The caches that builds share are bounded, and never cut while another build works in them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from stoker_builder.caches import folder_of, mark_used, shared_caches

KIB = 1024


def cache(builds: Path, name: str, size: int, used: int) -> Path:
    folder = folder_of(builds) / name
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data").write_bytes(os.urandom(size))
    os.utime(folder, (used, used))
    return folder


def build_that_uses(cache: Path, builds: Path, most: int) -> list[str]:
    said: list[str] = []
    with shared_caches(builds, most, said.append):
        mark_used(cache)
    return said


def test_the_cache_that_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    npm, go, uv = (cache(tmp_path, name, 100 * KIB, used) for name, used in (("npm", 20), ("go", 10), ("uv", 5)))
    said = build_that_uses(uv, tmp_path, 240 * KIB)
    assert (npm.exists(), go.exists(), uv.exists()) == (True, False, True)
    assert said == ["packages: the cache go is removed, because all have more than 240 KiB (--build-cache)"]
    assert build_that_uses(uv, tmp_path, 240 * KIB) == []


def test_a_cache_that_is_too_large_alone_goes_too(tmp_path: Path) -> None:
    uv = cache(tmp_path, "uv", 100 * KIB, 5)
    build_that_uses(uv, tmp_path, 10 * KIB)
    assert not uv.exists()


def test_a_build_that_uses_none_does_not_look(tmp_path: Path) -> None:
    uv = cache(tmp_path, "uv", 100 * KIB, 5)
    with shared_caches(tmp_path, 10 * KIB, lambda _line: None):
        pass
    assert uv.exists()


def test_nothing_goes_while_another_build_works_there(tmp_path: Path) -> None:
    uv = cache(tmp_path, "uv", 100 * KIB, 5)
    with shared_caches(tmp_path, 10 * KIB, lambda _line: None):
        assert build_that_uses(uv, tmp_path, 10 * KIB) == []
        assert uv.exists()
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    os.close(lock)
