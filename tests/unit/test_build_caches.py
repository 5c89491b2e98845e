"""The caches that builds share are bounded, and never cut while another build works in them."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from stoker_builder.caches import folder_of, mark_used, shared_caches
from stoker_builder.errors import Exceeded
from stoker_builder.usage import MAX_DEPTH, used_below

KIB = 1024


def cache(builds: Path, name: str, size: int, used: int) -> Path:
    folder = folder_of(builds) / name
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data").write_bytes(os.urandom(size))
    os.utime(folder, (used, used))
    return folder


def build_that_uses(cache: Path, builds: Path, most: int) -> list[str]:
    said: list[str] = []
    with shared_caches(builds, most, said.append) as caches:
        mark_used(caches.use(cache.name))
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


def test_a_build_that_fails_cuts_them_too(tmp_path: Path) -> None:
    uv = cache(tmp_path, "uv", 100 * KIB, 5)
    with pytest.raises(Exceeded), shared_caches(tmp_path, 10 * KIB, lambda _line: None) as caches:
        mark_used(caches.use("uv"))
        raise Exceeded("the build wrote too much")
    assert not uv.exists()


def test_a_cache_from_the_future_goes_first(tmp_path: Path) -> None:
    npm, uv = cache(tmp_path, "npm", 100 * KIB, int(time.time()) + 10**9), cache(tmp_path, "uv", 100 * KIB, 5)
    build_that_uses(uv, tmp_path, 140 * KIB)
    assert uv.exists() and not npm.exists()


def test_what_is_no_cache_is_removed(tmp_path: Path) -> None:
    uv = cache(tmp_path, "uv", 100 * KIB, 5)
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder_of(tmp_path) / "nowhere").symlink_to("/nonexistent")
    (folder_of(tmp_path) / "link").symlink_to(outside)
    (folder_of(tmp_path) / "file").write_bytes(b"x" * 300 * KIB)
    assert build_that_uses(uv, tmp_path, 200 * KIB) == []
    assert list(folder_of(tmp_path).iterdir()) == [uv]
    assert outside.is_dir()


def test_a_cache_with_folders_in_folders_without_end_harms_only_the_build_that_made_it(tmp_path: Path) -> None:
    uv, npm = (cache(tmp_path, name, 10 * KIB, 5) for name in ("uv", "npm"))
    deepest = uv
    for _ in range(MAX_DEPTH + 2):
        deepest = deepest / "x"
    deepest.mkdir(parents=True)
    with pytest.raises(Exceeded, match="nested"):
        used_below(folder_of(tmp_path), time.time() - 60)
    assert used_below(folder_of(tmp_path), time.time() + 60).files == 0
    build_that_uses(npm, tmp_path, 100 * KIB)
    assert npm.exists() and not uv.exists()
