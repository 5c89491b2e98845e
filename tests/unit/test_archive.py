"""The tar of a build request."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.errors import BadInput

SETTINGS = BuildSettings("greet", "python3", {"A": "b"})


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    folder = tmp_path / "greet"
    (folder / "deep").mkdir(parents=True)
    (folder / "handler.py").write_text("def handle(req): ...\n")
    (folder / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "deep" / "run.sh").chmod(0o755)
    for skipped in ("__pycache__", ".git", "deep/__pycache__"):
        (folder / skipped).mkdir()
        (folder / skipped / "x").write_text("x")
    return folder


def content(handler: Path, template: Path | None = None) -> bytes:
    with pack(SETTINGS, handler, template) as file:
        return file.read()


def test_settings_come_first_and_then_the_files_in_order(handler: Path) -> None:
    with pack(SETTINGS, handler, handler) as file, tarfile.open(fileobj=file) as tar:
        members = tar.getmembers()
        settings = tar.extractfile("stoker.json")
        assert settings and json.load(settings) == {
            "name": "greet",
            "lang": "python3",
            "buildArgs": {"A": "b"},
            "template": "",
            "offline": False,
            "secrets": {},
        }
    assert [(member.name, member.mode) for member in members] == [
        ("stoker.json", 0o644),
        ("handler/deep/run.sh", 0o755),
        ("handler/handler.py", 0o644),
        ("template/deep/run.sh", 0o755),
        ("template/handler.py", 0o644),
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


def test_the_same_files_give_the_same_bytes(handler: Path, tmp_path: Path) -> None:
    before = content(handler)
    os.utime(handler / "handler.py", (1, 1))
    (handler / "handler.py").chmod(0o600)
    assert content(handler) == before
    (handler / "handler.py").write_text("changed")
    assert content(handler) != before


def test_links_and_special_files_are_refused_by_name(handler: Path) -> None:
    link = handler / "link"
    link.symlink_to("handler.py")
    with pytest.raises(BadInput, match=f"{link} is a symbolic link"):
        content(handler)
    link.unlink()
    os.mkfifo(handler / "pipe")
    with pytest.raises(BadInput, match="pipe is neither a file nor a folder"):
        content(handler)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing cannot be read"):
        content(tmp_path / "nothing")
