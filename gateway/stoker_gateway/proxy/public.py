"""Calls that come by a public host, and calls from outside of functions that are private or have an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoker_gateway.proxy.call import Call
from stoker_gateway.proxy.hosts import Host, has_dot_segment
from stoker_gateway.proxy.idempotent import take_keyed
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_gateway.proxy.entry import Entry
    from stoker_gateway.proxy.proxy import Proxy


def handle_public(proxy: Proxy, exchange: Exchange, host: Host) -> None:
    """A call to an owner's host, or to one that a function's routes name. Nothing else is there."""
    path, question, query = exchange.target.partition(b"?")
    if has_dot_segment(path):
        proxy.refuse(exchange, 400, "bad-path", b"the path has dot segments: write it without . and ..")
    elif host.is_empty:
        proxy.refuse(exchange, 404, "unknown-host", b"nobody has the host %b here" % host.name)
    elif (found := host.find(path)) is None:
        proxy.refuse(exchange, 404, "unknown-function", b"host %b has no function at %b" % (host.name, path[:200]))
    else:
        mount, rest = found
        entry = mount.entry
        if mount.methods and exchange.method not in mount.methods:
            allow = b"Allow: %b\r\n" % b", ".join(sorted(mount.methods))
            proxy.refuse(exchange, 405, "method-not-allowed", b"this route does not take that method", allow)
        elif not proxy.rates.limits_anybody or _is_within_rate(proxy, exchange, entry):
            left = (rest or b"/" if mount.strips else path) + question + query
            if not (entry.idempotent and take_keyed(proxy.enqueue, proxy, exchange, entry, left)):
                Call(proxy, exchange, entry, left).begin()


def admits(proxy: Proxy, exchange: Exchange, entry: Entry, name: bytes) -> bool:
    """Whether a call by the function's name may go on; else it is answered. From inside they all may."""
    if not (entry.private or proxy.rates.limits_anybody) or proxy.inside.has(exchange):
        return True
    if entry.private:
        proxy.refuse_unknown(exchange, name)
        return False
    return _is_within_rate(proxy, exchange, entry)


def _is_within_rate(proxy: Proxy, exchange: Exchange, entry: Entry) -> bool:
    wait = proxy.rates.wait_of(entry.owner, proxy.now) if entry.owner else 0
    if wait:
        reason = b"the functions of %b got more calls than their rate allows" % entry.owner.encode()
        proxy.refuse(exchange, 429, "owner-rate", reason, retry=wait)
    return not wait
