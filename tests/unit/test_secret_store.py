"""Secrets on disk: encrypted, whole, private, and never lost without a word."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stoker_gateway.secrets import MAX_VALUE, SecretStore
from stoker_sdk.errors import Conflict, NotFound, StokerError, Unprocessable

NS = "openfaas-fn"


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return open_store(tmp_path)


def open_store(folder: Path) -> SecretStore:
    return SecretStore(folder / "secrets", folder / "key")


def test_a_value_survives_a_restart_byte_for_byte(tmp_path: Path) -> None:
    value = bytes(range(256))
    open_store(tmp_path).create(NS, "db", value)
    assert open_store(tmp_path).read(NS, "db") == value


def test_files_are_private_and_do_not_show_the_value(store: SecretStore, tmp_path: Path) -> None:
    store.create(NS, "db", b"s3cret-value")
    path = tmp_path / "secrets" / NS / "db"
    assert b"s3cret" not in path.read_bytes()
    for private in (path, tmp_path / "key"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_create_replace_delete_and_list_follow_each_other(store: SecretStore) -> None:
    assert store.names(NS) == [] and not store.exists(NS, "db")
    store.create(NS, "db", b"1")
    store.create(NS, "api", b"2")
    with pytest.raises(Conflict):
        store.create(NS, "db", b"3")
    assert store.names(NS) == ["api", "db"] and store.exists(NS, "db")
    store.replace(NS, "db", b"4")
    assert store.read(NS, "db") == b"4"
    store.delete(NS, "db")
    for missing in (store.read, store.delete):
        with pytest.raises(NotFound):
            missing(NS, "db")
    with pytest.raises(NotFound):
        store.replace(NS, "db", b"5")
    assert store.names(NS) == ["api"]


def test_namespaces_keep_their_secrets_apart(store: SecretStore) -> None:
    store.create("one", "db", b"1")
    store.create("two", "db", b"2")
    assert (store.read("one", "db"), store.read("two", "db")) == (b"1", b"2")
    assert store.names("three") == []


def test_the_longest_allowed_name_and_value_are_stored(store: SecretStore) -> None:
    name, value = "x" * 253, b"x" * MAX_VALUE
    store.create(NS, name, value)
    store.replace(NS, name, value)
    assert store.read(NS, name) == value
    with pytest.raises(Unprocessable):
        store.replace(NS, name, value + b"x")


@pytest.mark.parametrize("name", ["", ".", "..", "../key", "a/b", "A", ".new-x", "x" * 254, "a\0"])
def test_a_name_that_is_not_allowed_reaches_no_file(store: SecretStore, tmp_path: Path, name: str) -> None:
    for act in (
        lambda: store.create(NS, name, b"x"),
        lambda: store.read(NS, name),
        lambda: store.delete(NS, name),
    ):
        with pytest.raises(Unprocessable):
            act()
    with pytest.raises(Unprocessable):
        store.create("../up", "db", b"x")
    assert store.names(NS) == []


def test_a_missing_key_is_never_replaced_while_there_are_secrets(store: SecretStore, tmp_path: Path) -> None:
    store.create(NS, "db", b"x")
    (tmp_path / "key").unlink()
    with pytest.raises(StokerError, match=r"missing.*restore"):
        open_store(tmp_path)
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 44, b"!" * 44])
def test_a_key_file_without_a_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(StokerError, match="does not hold a key"):
        open_store(tmp_path)
    assert (tmp_path / "key").read_bytes() == content


def test_a_secret_that_another_key_made_is_reported_by_name_and_can_be_replaced(
    store: SecretStore, tmp_path: Path
) -> None:
    store.create(NS, "db", b"old")
    (tmp_path / "key").unlink()
    (tmp_path / "secrets" / NS / "db").rename(tmp_path / "aside")
    other = open_store(tmp_path)
    (tmp_path / "aside").rename(tmp_path / "secrets" / NS / "db")
    with pytest.raises(StokerError, match=r"'db'.*update"):
        other.read(NS, "db")
    other.replace(NS, "db", b"new")
    assert other.read(NS, "db") == b"new"


def test_what_a_killed_write_left_behind_is_not_listed(store: SecretStore, tmp_path: Path) -> None:
    store.create(NS, "db", b"x")
    (tmp_path / "secrets" / NS / ".new-0123").write_bytes(b"half")
    assert store.names(NS) == ["db"]
