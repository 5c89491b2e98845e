"""A request's head as environment variables, for programs that are started for one call (contract section 8.3).

What describes the request line wins over a header of the same name, and `Proxy` is left out: libraries that look for
`http_proxy` in any case would send a function's requests wherever a caller likes.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from stoker_wire.server import CHUNKED, Exchange

_MAX_SPELLINGS = 4096
_MAX_REMEMBERED = 64  # bytes; what a stranger sends is not kept at any length
_OURS = frozenset(
    b"Http_" + name
    for name in (
        b"Method",
        b"Path",
        b"Query",
        b"Transfer_Encoding",
        b"Content_Length",
        b"ContentLength",
        b"Host",
        b"Proxy",
    )
)
_known: dict[bytes, bytes] = {}


def header_variables(exchange: Exchange, *, classic: bool) -> dict[bytes, bytes]:
    """The variables of one request. A header that came several times gives its first value."""
    variables: dict[bytes, bytes] = {}
    for name, value in exchange.fields:
        variable = _known.get(name) or _variable(name)
        if variable not in _OURS:
            variables.setdefault(variable, value)
    path, _, query = exchange.target.partition(b"?")
    variables[b"Http_Method"] = exchange.method
    variables[b"Http_Path"] = _decoded(path)
    if query:
        variables[b"Http_Query"] = query
    if exchange.length == CHUNKED:
        variables[b"Http_Transfer_Encoding"] = b"chunked"
    elif exchange.length or classic:
        variables[b"Http_Content_Length"] = b"%d" % exchange.length
    if classic:
        length = b"%d" % exchange.length
        variables[b"Http_ContentLength"] = variables[b"Http_Content_Length"] = length
        variables[b"Http_Host"] = exchange.host
    return variables


def _variable(name: bytes) -> bytes:
    """`x-call-id` → `Http_X_Call_Id`."""
    variable = b"Http_" + b"_".join([part.capitalize() for part in name.split(b"-")])
    if len(_known) < _MAX_SPELLINGS and len(name) <= _MAX_REMEMBERED:
        _known[name] = variable
    return variable


def _decoded(path: bytes) -> bytes:
    """As the contract's watchdogs give it; a path that no variable can hold stays as it was sent."""
    if b"%" not in path:
        return path
    decoded = unquote_to_bytes(path)
    return path if b"\0" in decoded else decoded
