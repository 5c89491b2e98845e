"""Sealed secrets: what may stand in a repository, since only the platform that it was sealed for can open it.

A fresh X25519 key meets the platform's public one; HKDF-SHA256 makes a key of what they share, under which
ChaCha20-Poly1305 seals. What the secret is for (`me/shop TOKEN`) is authenticated along, so a sealed text
that was copied into another repository, or to another name, cannot be opened there.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

PREFIX: Final = "stoker-sealed-1:"
KEY_BYTES: Final = 32
MAX_VALUE: Final = 64 * 1024
_NONCE: Final = bytes(12)  # each key seals once


def new_private_key() -> bytes:
    """Raw; to be kept by the platform alone."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private: bytes) -> bytes:
    return _private(private).public_key().public_bytes_raw()


def seal(public: bytes, value: bytes, purpose: str) -> str:
    """The sealed text, one line. Raises `BadInput` for a key that is none, and a value that is too long."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    if len(public) != KEY_BYTES or not 0 < len(value) <= MAX_VALUE:
        raise BadInput(f"a sealed secret has 1 to {MAX_VALUE >> 10} KiB, and the platform's key {KEY_BYTES} bytes")
    fresh = X25519PrivateKey.generate()
    point = fresh.public_key().public_bytes_raw()
    shared = fresh.exchange(X25519PublicKey.from_public_bytes(public))
    sealed = _cipher(shared, point, public).encrypt(_NONCE, value, purpose.encode())
    return PREFIX + base64.b64encode(point + sealed).decode()


def unseal(private: bytes, text: str, purpose: str) -> bytes:
    """Raises `BadInput` for what was not sealed for this platform and this purpose."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > 2 * MAX_VALUE:
        raise BadInput("is not a sealed secret: make it with `stoker secret seal`")
    try:
        data = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        point, sealed = data[:KEY_BYTES], data[KEY_BYTES:]
        shared = _private(private).exchange(X25519PublicKey.from_public_bytes(point))
        return _cipher(shared, point, public_key_of(private)).decrypt(_NONCE, sealed, purpose.encode())
    except (binascii.Error, ValueError, InvalidTag):
        raise BadInput(
            f"was not sealed for {purpose} on this platform: seal it again with `stoker secret seal`"
        ) from None


def purpose_of(owner: str, repository: str, name: str) -> str:
    """What a build secret is sealed for. Owners and repositories are the same in any case of letters."""
    return f"{owner.lower()}/{repository.lower()} {name}"


def _private(raw: bytes) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(raw)


def _cipher(shared: bytes, point: bytes, public: bytes) -> ChaCha20Poly1305:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), KEY_BYTES, salt=None, info=PREFIX.encode() + point + public).derive(shared)
    return ChaCha20Poly1305(key)
