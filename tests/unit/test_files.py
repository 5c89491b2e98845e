"""Files are whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stoker_sdk.files import write_once, write_whole


def test_a_file_is_replaced_with_the_mode_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old = os.umask(0o077)
    try:
        for content, mode in ((b"one", 0o644), (b"two", 0o600)):
            write_whole(path, content, mode)
            assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (content, mode)
    finally:
        os.umask(old)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_once_and_then_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_once(path, b"first", 0o600)
    with pytest.raises(FileExistsError):
        write_once(path, b"second", 0o600)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_the_file_system_takes_is_taken(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"", 0o600)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"x", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
