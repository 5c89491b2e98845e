"""What we say of a broker that does not take us, and which credentials files can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_sdk.broker.connection import check_server, explained
from stoker_sdk.broker.credentials import read_credentials
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import BadInput, Unavailable

SETTINGS = BrokerSettings("nats://queue:4222", user="me", password_file="/run/password")
FILE = """-----BEGIN NATS USER JWT-----
eyJ.x.y
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY
------END USER NKEY SEED------
"""
"""The seed is the example of the nkeys library."""


@pytest.mark.parametrize("version", ["2.12.0", "2.15.1", "v3.0.0", "2.12.0-RC.1"])
def test_a_server_that_is_new_enough_passes(version: str) -> None:
    check_server({"version": version, "jetstream": True}, SETTINGS)


@pytest.mark.parametrize("version", ["2.11.9", "2.10.29", "1.4.1", "", "new"])
def test_a_server_that_is_too_old_is_named_with_what_is_needed(version: str) -> None:
    with pytest.raises(Unavailable, match=r"nats://queue:4222 is a NATS server .*need 2\.12 or newer"):
        check_server({"version": version, "jetstream": True}, SETTINGS)


def test_a_server_without_jetstream_is_told() -> None:
    with pytest.raises(Unavailable, match="has no JetStream"):
        check_server({"version": "2.15.1"}, SETTINGS)


def test_complaints_say_what_to_look_at() -> None:
    assert "check --nats-user me and the password in /run/password" in explained("Authorization Violation", SETTINGS)
    assert "it wants some" in explained("Authorization Violation", BrokerSettings("nats://queue:4222"))
    assert "--nats-ca" in explained("certificate verify failed", SETTINGS)
    assert explained("[Errno 111] Connection refused", SETTINGS) == "[Errno 111] Connection refused"


def test_a_credentials_file_is_read_and_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    file.write_text(FILE)
    credentials = read_credentials(BrokerSettings("nats://queue", creds=str(file)))
    assert credentials.jwt == "eyJ.x.y" and "eyJ" not in repr(credentials) and len(credentials.sign("nonce")) == 86


@pytest.mark.parametrize(
    "text",
    ["", FILE.replace("SUAC", "SUAD"), FILE.replace("SUACSSL", "0"), FILE[:100]],
)
def test_what_is_no_credentials_file_is_refused_without_its_content(tmp_path: Path, text: str) -> None:
    file = tmp_path / "user.creds"
    file.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_credentials(BrokerSettings("nats://queue", creds=str(file)))
    assert "UDXKFS" not in str(refused.value)
