"""What passes between the platform and the user id that installs: nobody can put links in its way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker_builder.staging import sealed
from stoker_builder.tree import close_tree, hand_over, remove_tree
from stoker_sdk.errors import BadInput


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a folder, and with links out of it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("ours")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("theirs")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "below" / "link").symlink_to(tmp_path / "outside" / "file")
    return folder


def changed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names in the order in which they get an owner."""
    names: list[str] = []

    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks, path
        names.append(path.name)

    monkeypatch.setattr(os, "chown", chown)
    return names


def test_a_folder_is_handed_over_after_all_that_it_holds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = changed(monkeypatch)
    hand_over(tree, 12345)
    assert sorted(names) == ["below", "file", "folder", "link", "link"]
    assert names[-1] == "folder" and names.index("below") > names.index("file")


def test_a_folder_is_closed_before_all_that_it_holds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = changed(monkeypatch)
    close_tree(tree, 12345)
    assert sorted(names) == ["below", "file", "folder", "link", "link"]
    assert names[0] == "folder" and names.index("below") < names.index("file")


def test_what_was_made_is_taken_where_only_the_platform_goes(tree: Path, tmp_path: Path) -> None:
    taken = sealed(tree, tmp_path)
    assert (taken / "below" / "file").read_text() == "theirs"
    assert taken.parent.stat().st_mode & 0o777 == 0o700
    assert not tree.exists()


def test_links_pipes_and_nothing_are_not_taken(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(BadInput, match=f"{name}, which the build has made, is neither"):
            sealed(tree / name, tmp_path)
    with pytest.raises(BadInput, match="is not there"):
        sealed(tree / "nothing", tmp_path)
    assert (tmp_path / "outside" / "file").read_text() == "ours"


def test_a_tree_whose_owner_took_all_permissions_is_removed_and_nothing_outside(tree: Path, tmp_path: Path) -> None:
    (tree / "below" / "deep" / "deeper").mkdir(parents=True)
    for name in ("below/deep/deeper", "below/deep", "below", "."):
        (tree / name).chmod(0)
    remove_tree(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "file").read_text() == "ours"
