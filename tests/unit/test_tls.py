"""Certificates: made once, renewed in time, trusted by real TLS clients."""

from __future__ import annotations

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from stoker_gateway.tls import Certificates, ensure_certificates
from stoker_sdk.errors import BadInput, StokerError

NOW = datetime.now(UTC)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(before: dict[str, bytes], folder: Path) -> set[str]:
    after = contents(folder)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


async def shake_hands(made: Certificates, name: str) -> None:
    """A real TLS connection; raises `ssl.SSLError` when the client does not trust the server by this name."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(made.chain, made.key)
    client_side = ssl.create_default_context(cafile=str(made.ca))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname=name)
        await reader.read()
        writer.close()


async def test_a_strict_client_that_has_the_authority_trusts_every_name(tmp_path: Path) -> None:
    made = ensure_certificates(tmp_path / "tls", ["stoker.example", "*.fn.example", "192.0.2.7"])
    for name in ("localhost", "127.0.0.1", "::1", "stoker.example", "greet.fn.example", "192.0.2.7"):
        await shake_hands(made, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(made, "elsewhere.example")


def test_keys_are_private_and_certificates_readable(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "tls", [])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) & 0o055 == 0o055


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["a.example"])
    before = contents(tmp_path)
    ensure_certificates(tmp_path, ["a.example"])
    assert changed(before, tmp_path) == set()


def test_other_names_and_a_near_end_renew_the_server_and_keep_the_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, [], NOW)
    for names, moment in ((["b.example"], NOW), (["b.example"], NOW + timedelta(days=370))):
        before = contents(tmp_path)
        ensure_certificates(tmp_path, names, moment)
        assert changed(before, tmp_path) == {"server.pem", "server.key"}
    assert read(tmp_path / "server.pem").not_valid_after_utc > NOW + timedelta(days=700)


def test_an_authority_near_its_end_is_followed_by_another_of_another_name(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, [], NOW)
    before, old = contents(tmp_path), read(tmp_path / "ca.pem")
    late = NOW + timedelta(days=3640)
    ensure_certificates(tmp_path, [], late)
    assert changed(before, tmp_path) == set(before)
    assert read(tmp_path / "ca.pem").subject != old.subject


def test_the_server_never_outlives_the_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, [], NOW)
    ensure_certificates(tmp_path, [], NOW + timedelta(days=3500))
    assert read(tmp_path / "server.pem").not_valid_after_utc <= read(tmp_path / "ca.pem").not_valid_after_utc


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_server_file_that_is_missing_or_broken_is_made_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    ensure_certificates(tmp_path, [])
    before = contents(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ensure_certificates(tmp_path, [])
    assert changed(before, tmp_path) == {"server.pem", "server.key"}


def test_a_kill_between_the_two_files_of_a_pair_is_mended(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "one", [])
    ensure_certificates(tmp_path / "two", [])
    (tmp_path / "two" / "server.key").rename(tmp_path / "one" / "server.key")
    made = ensure_certificates(tmp_path / "one", [])
    asyncio.run(shake_hands(made, "localhost"))
    (tmp_path / "one" / "ca.pem").unlink()
    made = ensure_certificates(tmp_path / "one", [])
    asyncio.run(shake_hands(made, "localhost"))


@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
def test_a_broken_authority_is_refused_and_never_replaced(tmp_path: Path, name: str) -> None:
    ensure_certificates(tmp_path, [])
    (tmp_path / name).write_bytes(b"nonsense")
    before = contents(tmp_path)
    with pytest.raises(StokerError, match=r"ca\.pem.*restore"):
        ensure_certificates(tmp_path, [])
    assert changed(before, tmp_path) == set()


@pytest.mark.parametrize("name", ["", "a b", "ü.example", "x" * 64, "*", "a..b", "https://a", "10.0.0.0/8"])
def test_a_name_that_no_certificate_can_hold_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="host name or an IP"):
        ensure_certificates(tmp_path, [name])


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StokerError, match="file"):
        ensure_certificates(tmp_path / "file" / "tls", [])
