"""Which texts can be the address that an answer is sent to: `X-Callback-Url` (contract section 5.4). Pure.

Strict where two parsers could read a text differently, because one would be checked and another called. Whether an
address may be called is a later question (`addresses.py`): it has to be asked when it is called.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from stoker_sdk.errors import BadInput

MAX_URL = 4096

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_HOST_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_PRINTED = re.compile(r"[^!-~]|\\")


def check_callback_url(text: str) -> None:
    """Raise `BadInput` unless the text is an absolute http or https URL that can be called as it stands."""
    if len(text) > MAX_URL:
        raise BadInput(f"the callback URL has {len(text)} characters, and {MAX_URL} are the most")
    if found := _NOT_PRINTED.search(text):
        raise _bad(text, f"{found.group()!r} must be percent-encoded")
    url = _URL.fullmatch(text)
    if url is None or url["scheme"].lower() not in ("http", "https"):
        raise _bad(text, "write http://HOST/PATH or https://HOST/PATH")
    if "@" in url["authority"]:
        raise BadInput("the callback URL has a user name in it: leave it out, and verify X-Stoker-Signature instead")
    if _BAD_ESCAPE.search(url["path"]):
        raise _bad(text, "'%' must be followed by two hexadecimal digits")
    _check_authority(text, url["authority"])


def _check_authority(text: str, authority: str) -> None:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _bad(text, "its host must be a name or an address, with a port or without")
    if found["port"] and not 1 <= int(found["port"]) <= 65535:
        raise _bad(text, f"port {found['port']} is not between 1 and 65535")
    if not _is_host(found["host"]):
        raise _bad(text, f"{found['host'][:80]!r} is neither a host name nor an address")


def _is_host(host: str) -> bool:
    """Numbers in other notations than four decimal ones (`127.1`, `0x7f000001`) are read differently here and there."""
    if host.startswith("["):
        return _is(IPv6Address, host[1:-1])
    parts = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(parts[-1]):
        return _is(IPv4Address, host)
    return len(host) <= 253 and all(_HOST_PART.fullmatch(part) for part in parts)


def _is(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    return True


def _bad(text: str, what: str) -> BadInput:
    return BadInput(f"callback URL {text[:80]!r} cannot be used: {what}")
