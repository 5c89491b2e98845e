"""Digests, settings from the environment, folders of running builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker_builder.bounds import Bounds
from stoker_builder.config import index_environment, read_config, step_settings
from stoker_builder.environment import environment_digest
from stoker_builder.staging import lock, staging_folder
from stoker_builder.tree import close_tree, copy_tree, digest_of, digest_tree, remove_tree
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput


def tree(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.py").write_text("a")
    (folder / "deep" / "b.py").write_text("b")
    return folder


def test_the_digest_of_a_tree_depends_on_names_contents_and_executable_bits_only(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    os.utime(two / "a.py", (1, 1))
    assert digest_tree(one) == digest_tree(two)
    (two / "a.py").chmod(0o755)
    assert digest_tree(one) != digest_tree(two)
    (two / "a.py").chmod(0o644)
    (two / "a.py").rename(two / "c.py")
    assert digest_tree(one) != digest_tree(two)


def test_parts_of_a_digest_cannot_be_shifted() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"]) != digest_of(["abc"])


def test_no_requirements_are_no_environment() -> None:
    assert environment_digest("", "tag") == ""
    assert len(environment_digest("humanize\n", "tag")) == 64
    assert environment_digest("humanize\n", "tag") != environment_digest("humanize\n", "other")


def test_a_copy_is_the_same_tree_without_its_links(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    expected = digest_tree(source)
    (source / "link").symlink_to("/etc/passwd")
    copy_tree(source, tmp_path / "copy")
    assert digest_tree(tmp_path / "copy") == expected
    assert not (tmp_path / "copy" / "link").exists()


def test_a_closed_tree_has_no_writable_file_and_can_be_removed(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    close_tree(folder, None)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.py")} == {0o444}
    remove_tree(folder)
    remove_tree(folder)
    assert not folder.exists()


def test_a_tree_is_removed_also_where_permissions_are_gone(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    (folder / "deep").chmod(0)
    remove_tree(folder)
    assert not folder.exists()


def test_a_staging_folder_is_gone_afterwards_and_a_dead_one_is_swept_up(tmp_path: Path) -> None:
    dead = tree(tmp_path / "builds" / "run-dead")
    with staging_folder(tmp_path / "builds") as first, staging_folder(tmp_path / "builds") as second:
        assert first.is_dir() and second.is_dir() and first != second
        assert not dead.exists()
        assert first.stat().st_mode & 0o777 == 0o711
    assert list((tmp_path / "builds").iterdir()) == []


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with lock(tmp_path / "locks" / "a"), pytest.raises(Stop), lock(tmp_path / "locks" / "a", stop):
        pass
    with lock(tmp_path / "locks" / "a", stop):
        pass
    assert list((tmp_path / "locks").iterdir()) == []


def test_only_variables_that_lead_to_an_index_are_passed_on() -> None:
    environment = {
        "HOME": "/root",
        "STOKER_PASSWORD": "secret",
        "UV_DEFAULT_INDEX": "https://one",
        "UV_CACHE_DIR": "/elsewhere",
        "PIP_INDEX_URL": "https://two",
        "PIP_FIND_LINKS": "/a /b",
        "https_proxy": "http://proxy",
    }
    assert index_environment(environment) == {
        "UV_DEFAULT_INDEX": "https://one",
        "UV_FIND_LINKS": "/a,/b",
        "https_proxy": "http://proxy",
    }


def test_build_arguments_come_before_the_platforms_settings() -> None:
    config = read_config(
        DataDir(Path("/data")), None, {"STOKER_TEST_TIMEOUT": "2m", "STOKER_TEST_MEMORY": "1Gi"}, Bounds()
    )
    plain = step_settings({}, config)
    assert (plain.enabled, plain.command, plain.timeout, plain.memory) == (True, "", 120, 1 << 30)
    arguments = {"TEST_ENABLED": "False", "TEST_COMMAND": " tox ", "TEST_TIMEOUT": "5", "TEST_MEMORY": "64Mi"}
    own = step_settings(arguments, config)
    assert (own.enabled, own.command, own.timeout, own.memory) == (False, "tox", 5, 64 << 20)


@pytest.mark.parametrize("arguments", [{"TEST_ENABLED": "perhaps"}, {"TEST_TIMEOUT": "soon"}, {"TEST_MEMORY": "much"}])
def test_a_bad_build_argument_is_refused_by_name(arguments: dict[str, str]) -> None:
    config = read_config(DataDir(Path("/data")), None, {}, Bounds())
    with pytest.raises(BadInput, match=f"build argument {next(iter(arguments))}"):
        step_settings(arguments, config)


def test_a_bad_setting_of_the_platform_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="STOKER_TEST_TIMEOUT"):
        read_config(DataDir(Path("/data")), None, {"STOKER_TEST_TIMEOUT": "soon"}, Bounds())
