"""The certificates of a machine that has none: an authority of its own and a server certificate by it.

Made once, so that a user trusts `ca.pem` once; the server certificate is renewed at a start near its end,
or when the names change. Files of a folder: `ca.pem` and `server.pem` (mode 0644), `ca.key` and
`server.key` (0600).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.files import write_whole

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
"""The longest that Apple's clients accept is 825 days, the longest of a public authority 398."""
RENEW_BEFORE = timedelta(days=30)
_CLOCK_SKEW = timedelta(hours=1)
_ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificates:
    """Where the files are: the authority for clients, chain and key for the server."""

    ca: Path
    chain: Path
    key: Path


@dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(folder: Path, names: Sequence[str], now: datetime | None = None) -> Certificates:
    """Make what is missing or ends within 30 days. `names` are further host names and addresses.

    Raises `BadInput` for a name that no certificate can hold, `StokerError` for files that cannot be used.
    """
    now = now or datetime.now(UTC)
    wanted = _subject_names([*_ALWAYS, socket.gethostname()], names)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        ca = _ensure_ca(folder, now)
        _ensure_server(folder, ca, wanted, now)
    except OSError as error:
        raise StokerError(
            f"certificate file {error.filename or folder} cannot be used: {error.strerror}. "
            "Start as the user who owns the data folder"
        ) from error
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")


def check_pair(chain: Path, key: Path) -> None:
    """Raise `StokerError` unless the two files are a certificate chain and its key, and it has not ended."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key, password=_no_password)
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    except (OSError, ValueError) as error:  # ssl's own is an OSError
        raise StokerError(f"{chain} and {key} are no certificate with its key: {error}") from error
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise StokerError(f"the certificate in {chain} ended at {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one without a password")


def _ensure_ca(folder: Path, now: datetime) -> _Pair:
    certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
    if not certificate_file.exists():
        return _make_ca(certificate_file, key_file, now)
    pair = _load(certificate_file, key_file)
    if pair is None:
        # Clients trust this authority: it is not replaced behind their backs.
        raise StokerError(
            f"{certificate_file} and {key_file} are no certificate with its key: restore both from a backup, "
            "or remove both, and the next start makes a new authority that clients must trust anew"
        )
    return pair if _lasts(pair, now) else _make_ca(certificate_file, key_file, now)


def _ensure_server(folder: Path, ca: _Pair, names: list[x509.GeneralName], now: datetime) -> None:
    certificate_file, key_file = folder / "server.pem", folder / "server.key"
    pair = _load(certificate_file, key_file)
    if pair and _lasts(pair, now) and _is_signed_by(pair, ca) and _names_of(pair) == names:
        return
    pair = _issue_server(ca, names, now)
    _write_key(key_file, pair.key)
    write_whole(certificate_file, _pem(pair.certificate) + _pem(ca.certificate), 0o644)


def _make_ca(certificate_file: Path, key_file: Path, now: datetime) -> _Pair:
    pair = _issue_ca(now)
    _write_key(key_file, pair.key)
    write_whole(certificate_file, _pem(pair.certificate), 0o644)
    return pair


def _issue_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name keeps an old authority and its successor apart in a client's trust store.
    serial = x509.random_serial_number()
    name = _name(f"Stoker local authority {serial & 0xFFFFFFFF:08x}")
    builder = (
        _builder(name, name, key.public_key(), now, now + CA_LIFE)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _issue_server(ca: _Pair, names: list[x509.GeneralName], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + SERVER_LIFE, ca.certificate.not_valid_after_utc)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = (
        _builder(_name("Stoker server"), ca.certificate.subject, key.public_key(), now, end)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(authority, critical=False)
    )
    return _Pair(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_names(own: Sequence[str], extra: Sequence[str]) -> list[x509.GeneralName]:
    found = [general for name in own if (general := _general_name(name))]
    for name in extra:
        general = _general_name(name)
        if general is None:
            raise BadInput(f"{name[:80]!r} cannot stand in a certificate: give a host name or an IP address")
        found.append(general)
    return list(dict.fromkeys(found))


def _general_name(text: str) -> x509.GeneralName | None:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    labels = text.removeprefix("*.").split(".")
    allowed = all(label and len(label) < 64 and label.replace("-", "").replace("_", "").isalnum() for label in labels)
    return x509.DNSName(text) if allowed and text.isascii() and len(text) < 254 else None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _names_of(pair: _Pair) -> list[x509.GeneralName]:
    try:
        return list(pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


def _lasts(pair: _Pair, now: datetime) -> bool:
    certificate = pair.certificate
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _is_signed_by(pair: _Pair, ca: _Pair) -> bool:
    try:
        pair.certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(certificate_file: Path, key_file: Path) -> _Pair | None:
    """The pair, or None when one of the two is missing, broken, or of the other's kin."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return _Pair(certificate, key)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, pem, 0o600)
