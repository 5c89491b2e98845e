"""A nats-server as its owner might have configured it, for platforms started with `--nats`.

nats = OwnNats(folder, 'authorization { user: "u", password: "p" }').start()
nats.configure("authorization { … }")       # other settings, after a restart on the same port
Tls(folder)                                 # a CA of its own and a server's certificate for localhost
Jwts(folder)                                # operator, account and user; `creds` is the user's file
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from running_platform import wait_for

from stoker_gateway.queue.broker import find_program

ALL = -1


class OwnNats:
    """One server with JetStream in a folder. Its port stays the same over restarts."""

    def __init__(self, folder: Path, settings: str = "", *, scheme: str = "nats") -> None:
        self.folder = folder
        self.port = _free_port()
        self.url = f"{scheme}://localhost:{self.port}"
        self.jetstream_off = False
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OwnNats:
        config = self.folder / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n{self._jetstream}\n{self._settings}\n')
        log = (self.folder / "nats.log").open("ab")
        self._process = subprocess.Popen([find_program(), "-c", str(config)], stdout=log, stderr=log)
        wait_for(self._greets, "the server's greeting")
        return self

    @property
    def _jetstream(self) -> str:
        return "" if self.jetstream_off else f'jetstream {{ store_dir: "{self.folder}/store" }}'

    def configure(self, settings: str) -> None:
        self._settings = settings
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _greets(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "nats.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                return sock.recv(5) == b"INFO "
        except OSError:
            return False


class Tls:
    """`ca` is the file that clients trust, `settings` are the server's."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = _certificate("own CA", authority, "own CA", authority, is_ca=True)
        leaf = _certificate(name, server, "own CA", authority, is_ca=False)
        self.ca.write_bytes(root.public_bytes(Encoding.PEM))
        (folder / "server.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        key = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "server.key").write_bytes(key)
        self.settings = f'tls {{ cert_file: "{folder}/server.pem", key_file: "{folder}/server.key" }}'


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(days=1),
    ).add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


class Key:
    """An nkey; `kind` is O(perator), A(ccount) or U(ser)."""

    _PREFIXES: Final = {"O": 14 << 3, "A": 0, "U": 20 << 3}

    def __init__(self, kind: str) -> None:
        self._private = Ed25519PrivateKey.generate()
        prefix = self._PREFIXES[kind]
        public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        seed = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.public = _base32(bytes([prefix]) + public)
        self.seed = _base32(bytes([18 << 3 | prefix >> 5, (prefix & 31) << 3]) + seed)

    def jwt(self, kind: str, subject: Key, nats: dict[str, Any], expires: float = 0) -> str:
        """A token of this key's about another."""
        claims: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": kind,
            "sub": subject.public,
            "nats": {"type": kind, "version": 2, **nats},
        }
        if expires:
            claims["exp"] = int(expires)
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        text = f"{_base64({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_base64(claims)}"
        return f"{text}.{_base64(self._private.sign(text.encode()))}"


class Jwts:
    """`settings` are the server's, `creds` the file of a user who may do everything."""

    def __init__(self, folder: Path, *, lasts: float = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        operator, self.account, system = Key("O"), Key("A"), Key("A")
        limits = {
            **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), ALL),
            **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), ALL),
            "wildcards": True,
        }
        account = operator.jwt("account", self.account, {"limits": limits})
        of_system = operator.jwt("account", system, {"limits": limits | {"mem_storage": 0, "disk_storage": 0}})
        self.settings = "\n".join(
            [
                f"operator: {operator.jwt('operator', operator, {})}",
                "resolver: MEMORY",
                f"system_account: {system.public}",
                f"resolver_preload: {{ {self.account.public}: {account}, {system.public}: {of_system} }}",
            ]
        )
        self.creds = folder / "user.creds"
        self.renew(lasts)

    def renew(self, lasts: float = 0) -> None:
        """Write a file for a new user, whose token is good for so many seconds (0: for ever)."""
        user = Key("U")
        unlimited = {"subs": ALL, "data": ALL, "payload": ALL}
        jwt = self.account.jwt("user", user, unlimited, time.time() + lasts if lasts else 0)
        self.creds.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _base32(data: bytes) -> str:
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def _base64(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _free_port() -> int:
    """Below those of outgoing connections: a client that dials it while the server is down meets nobody."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
