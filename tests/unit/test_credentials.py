"""Logins: faas-cli's file, and the password of the platform on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stoker_sdk.credentials import (
    CredentialStore,
    basic_authorization,
    config_folder,
    local_authorization,
)
from stoker_sdk.data_dir import DataDir, default_data_dir
from stoker_sdk.errors import StokerError

GATEWAY = "http://127.0.0.1:8080"


def test_what_is_saved_is_found_for_that_gateway_only(tmp_path: Path) -> None:
    store = CredentialStore(tmp_path / "new" / "folder")
    assert store.find(GATEWAY) == ""
    store.save(GATEWAY, "admin", "pässword")
    store.save("https://other", "me", "x")
    store.save(GATEWAY, "admin", "second")
    assert store.find(GATEWAY) == basic_authorization("admin", "second")
    assert store.find("https://other") == basic_authorization("me", "x")
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in store.folder.iterdir()] == ["config.yml"]
    assert store.remove(GATEWAY) and not store.remove(GATEWAY)
    assert store.find(GATEWAY) == ""


def test_the_file_is_the_one_that_faas_cli_writes_and_its_other_entries_stay(tmp_path: Path) -> None:
    store = CredentialStore(tmp_path)
    other = {
        "gateway": "https://iam",
        "auth": "oauth2",
        "token": "abc",
        "options": [{"name": "a", "value": "b"}],
    }
    store.path.write_text(yaml.safe_dump({"auths": [other], "later": 1}))
    store.save(GATEWAY, "admin", "secret")
    assert yaml.safe_load(store.path.read_text()) == {
        "auths": [other, {"gateway": GATEWAY, "auth": "basic", "token": "YWRtaW46c2VjcmV0"}],
        "later": 1,
    }
    assert store.find("https://iam") == "Bearer abc"


@pytest.mark.parametrize("text", ["[", "a: *b", "[" * 3000])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    store = CredentialStore(tmp_path)
    store.path.write_text(text)
    with pytest.raises(StokerError, match="is not YAML: repair it"):
        store.find(GATEWAY)


@pytest.mark.parametrize("text", ["", "auths: no", "just text", "auths: [1, {gateway: http://127.0.0.1:8080}]"])
def test_a_file_without_logins_holds_none(tmp_path: Path, text: str) -> None:
    store = CredentialStore(tmp_path)
    store.path.write_text(text)
    assert store.find(GATEWAY) == ""


def test_the_folder_follows_the_environment() -> None:
    home = Path("/home/me")
    assert config_folder({}, home) == home / ".openfaas"
    assert config_folder({"CI": "true"}, home) == Path(".openfaas")
    assert config_folder({"CI": "1", "OPENFAAS_CONFIG": "/x"}, home) == Path("/x")


def test_the_local_password_is_used_for_loopback_gateways_only(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    assert local_authorization(GATEWAY, data) == ""
    data.password.write_text("secret\n")
    assert local_authorization(GATEWAY, data) == basic_authorization("admin", "secret")
    assert local_authorization("https://far.example.org", data) == ""


def test_an_unreadable_password_file_is_named(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.password.mkdir()
    with pytest.raises(StokerError, match="password cannot be read"):
        local_authorization(GATEWAY, data)


def test_the_data_folder_follows_user_and_environment() -> None:
    home = {"HOME": "/home/me"}
    assert default_data_dir(home, is_root=True).path == Path("/var/lib/stoker")
    assert default_data_dir(home, is_root=False).path == Path("/home/me/.local/share/stoker")
    assert default_data_dir({**home, "XDG_DATA_HOME": "/data"}, is_root=False).path == Path("/data/stoker")
    assert default_data_dir({**home, "XDG_DATA_HOME": "data"}, is_root=False).path.is_relative_to("/home/me")
    assert default_data_dir({**home, "STOKER_DATA_DIR": "/x"}, is_root=True).path == Path("/x")
