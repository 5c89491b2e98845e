"""What a client of the broker proves itself with: token, user and password, or a credentials file (JWT and seed).

The file is the one that NATS tools write: two blocks between dashed lines, the user's JWT and the seed of its Ed25519
key in base32 (two bytes of prefix, 32 of seed, a checksum of two).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BLOCK: Final = re.compile(r"-{3,}BEGIN [A-Z ]+-{3,}\s*([A-Za-z0-9_=.+/-]+?)\s*-{3,}END [A-Z ]+-{3,}")
_SEED_BYTES: Final = 36


@dataclass(frozen=True)
class Credentials:
    """Empty is what is not used. `jwt` goes with `key`, which signs the server's nonce."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    key: Ed25519PrivateKey | None = field(default=None, repr=False)

    def sign(self, nonce: str) -> str:
        """The signature as the protocol wants it: base64url without padding."""
        assert self.key is not None
        return base64.urlsafe_b64encode(self.key.sign(nonce.encode())).rstrip(b"=").decode()


def read_credentials(settings: BrokerSettings) -> Credentials:
    """Reads the files that the settings name. Raises `BadInput`."""
    if settings.creds:
        jwt, key = _read_creds(settings.creds)
        return Credentials(jwt=jwt, key=key)
    if settings.user:
        return Credentials(user=settings.user, password=_secret(settings.password_file))
    return Credentials(token=settings.token or (_secret(settings.token_file) if settings.token_file else ""))


def _read_creds(path: str) -> tuple[str, Ed25519PrivateKey]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    blocks = _BLOCK.findall(_secret(path))
    if len(blocks) != 2:
        raise BadInput(f"the broker's credentials in {path} are not a JWT and a seed, as NATS tools write them")
    jwt, seed = blocks
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error as error:
        raise BadInput(f"the seed in {path} is not in base32") from error
    if len(raw) != _SEED_BYTES or binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise BadInput(f"the seed in {path} is cut or changed: its checksum is wrong")
    return jwt, Ed25519PrivateKey.from_private_bytes(raw[2:34])


def _secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the broker's credentials in {path} cannot be read: {error}") from error
