"""The password file, and the check of a request's header."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from stoker_gateway.auth import ensure_password
from stoker_sdk.basic_auth import BasicAuth
from stoker_sdk.errors import StokerError


def test_a_password_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "password"
    password = ensure_password(path)
    assert len(password) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_password(path) == password
    assert ensure_password(tmp_path / "other") != password
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other", "password"]


def test_a_password_that_was_written_by_hand_is_taken_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" my own ünique one \n", encoding="utf-8")
    assert ensure_password(path) == "my own ünique one"


@pytest.mark.parametrize("content", [b"", b" \n\t", b"\xff\xfe"])
def test_a_password_file_without_a_password_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(StokerError, match=r"password.*(remove|Write)"):
        ensure_password(path)
    assert path.read_bytes() == content


def test_a_password_file_that_cannot_be_read_or_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "password"):
        with pytest.raises(StokerError, match=str(path)):
            ensure_password(path)


def test_only_the_right_user_and_password_are_allowed() -> None:
    auth = BasicAuth("admin", "pä:ss")

    def header(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert auth.allows(header("admin:pä:ss"))
    assert auth.allows(header("admin:pä:ss").replace("Basic", "basic") + " ")
    for wrong in ("admin:pä", "Admin:pä:ss", ":pä:ss", "admin:", "admin", ""):
        assert not auth.allows(header(wrong))
    for broken in ("", "Basic", "Basic \ud800", "Bearer ", "Bearer x", header("admin:pä:ss")[:-3] + "é=="):
        assert not auth.allows(broken)
