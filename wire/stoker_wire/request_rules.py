"""What a request's head may say, beyond what llhttp has checked: pure functions that return a value or raise `Refusal`.

The rule behind each: what two parsers could read differently is refused, never repaired (RFC 9112, section 11.2).
"""

from __future__ import annotations

import re

import httptools

from stoker_wire.message import Refusal

_MAX_KNOWN_HOSTS = 1024
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(:[0-9]{0,5})?")
_known_hosts: set[bytes] = set()


def check_host(host: bytes) -> bytes:
    """The value of a Host header or the authority of a URL: a name or address, with or without a port."""
    if host not in _known_hosts:
        if len(host) > 300 or not _HOST.fullmatch(host):
            raise Refusal(400, "the Host header is not a host name with or without a port")
        if len(_known_hosts) >= _MAX_KNOWN_HOSTS:
            _known_hosts.clear()
        _known_hosts.add(host)
    return host


def check_coding(coding: bytes) -> None:
    """The value of a Transfer-Encoding header."""
    codings = [name.strip() for name in coding.lower().split(b",")]
    if codings == [b"chunked"] and coding.strip() == coding:
        return
    if codings[-1] != b"chunked":
        raise Refusal(400, "the last transfer coding must be chunked, or the body has no end")
    if b"chunked" in codings[:-1] or len(codings) == 1:
        raise Refusal(400, "the transfer coding must be chunked, once")
    raise Refusal(501, "the only transfer coding that is understood is chunked")


def minor_version(version: str, *, chunked: bool) -> int:
    """0 or 1, of HTTP/1.0 or HTTP/1.1."""
    if version == "1.1":
        return 1
    if version != "1.0":
        raise Refusal(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is")
    if chunked:
        raise Refusal(400, "an HTTP/1.0 request cannot have a transfer coding")
    return 0


def origin_form(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """The authority, if the target has one, and the path and query, of a target in any form (RFC 9112, section 3.2)."""
    if b"#" in target:
        raise Refusal(400, "the request's target has a fragment")
    if method == b"CONNECT":
        raise Refusal(405, "CONNECT is not served here")
    if target[0] == 47:  # "/"
        return None, target
    if method == b"OPTIONS" and target == b"*":
        return None, b"/*"
    scheme, separator, rest = target.partition(b"://")
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    if not separator or scheme.lower() not in (b"http", b"https") or not authority:
        raise Refusal(400, "the request's target is neither a path nor a URL")
    path = rest[len(authority) :]
    return check_host(authority), path if path.startswith(b"/") else b"/" + path


def refusal_of(error: Exception) -> Refusal:
    """How llhttp's complaint is answered."""
    detail = str(error)
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(400, "the request's method is not known")
    if "PRI" in detail:
        return Refusal(505, "HTTP/2 is not spoken here, HTTP/1.1 is")
    if "HTTP version" in detail:
        return Refusal(505, "this version of HTTP is not spoken here, HTTP/1.1 is")
    return Refusal(400, f"the request is malformed: {detail}")
