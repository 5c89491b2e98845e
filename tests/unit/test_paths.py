"""Paths that must stay inside a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_sdk.errors import BadInput
from stoker_sdk.paths import check_tree, inside


def test_a_path_below_the_folder_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    assert inside(tmp_path, "./a/../a/b", "handler") == tmp_path / "a" / "b"
    assert inside(tmp_path, "link/b", "handler") == tmp_path / "a" / "b"
    assert inside(tmp_path, ".", "handler") == tmp_path


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc", "out", "out/x", "", "a\0b", "loop"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "stack"
    (folder / "a").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="handler: "):
        inside(folder, name, "handler")


def test_a_tree_may_hold_links_that_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "dangling").symlink_to("nothing")
    check_tree(tmp_path, "handler")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "../.."])
def test_a_tree_with_a_link_that_leaves_it_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "handler"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "link").symlink_to(target)
    with pytest.raises(BadInput, match="'deep/link' is a symbolic link that leaves the folder"):
        check_tree(folder, "functions.greet.handler")
