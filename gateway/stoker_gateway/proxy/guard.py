"""Who is inside, and what is left of owners' rates: asked only for functions that are private or have an owner.

From inside come workers, by their own socket, and clients at the networks that count as inside, unless a header says
that the call was forwarded. Everything else is from outside, where private functions are not to be seen, and where
calls count towards the owner's rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from stoker_gateway.link import Limits
from stoker_gateway.rates import NO_LIMIT

if TYPE_CHECKING:
    from stoker_wire.server import Exchange

_MAX_PEERS: Final = 4096
_FORWARDED: Final = frozenset((b"forwarded", b"x-forwarded-for"))
_BURST_SECONDS: Final = 1.0


class Inside:
    """The networks whose clients are inside."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Networks as `check_networks` lets them pass."""
        self._networks = [ip_network(network) for network in networks]
        self._peers: dict[bytes, bool] = {}

    def has(self, exchange: Exchange) -> bool:
        peer = exchange.peer
        if not peer:
            return True
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.clear()
            known = self._peers[peer] = self._look_up(peer)
        return known and not any(len(name) in (9, 15) and name.lower() in _FORWARDED for name, _ in exchange.fields)

    def _look_up(self, peer: bytes) -> bool:
        address = ip_address(peer.decode().partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class Bucket:
    """What is left of one owner's rate: it fills with the time, up to what a second brings, and one call at least."""

    __slots__ = ("asked", "filled_at", "left", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.filled_at = now
        self.left = self._most
        self.asked = 0

    @property
    def _most(self) -> float:
        return max(1.0, self.rate * _BURST_SECONDS)

    def take(self, now: float) -> float:
        """0 when a call may go on, else the seconds after which one may."""
        self.asked += 1
        if now > self.filled_at:
            self.left = min(self._most, self.left + (now - self.filled_at) * self.rate)
            self.filled_at = now
        if self.left >= 1.0:
            self.left -= 1.0
            return 0.0
        return (1.0 - self.left) / self.rate

    def change(self, rate: float) -> None:
        self.rate = rate
        self.left = min(self.left, self._most)


class OwnerRates:
    """The limits of this proxy, as control dealt them, and what is left of each."""

    def __init__(self) -> None:
        self._limits = Limits(NO_LIMIT, {})
        self._buckets: dict[str, Bucket] = {}

    def set(self, limits: Limits) -> None:
        self._limits = limits
        for owner in list(self._buckets):
            if rate := limits.owners.get(owner, limits.rest):
                self._buckets[owner].change(rate)
            else:
                del self._buckets[owner]

    @property
    def limits_anybody(self) -> bool:
        return bool(self._limits.rest or self._limits.owners)

    def wait_of(self, owner: str, now: float) -> int:
        """0 when a call of this owner's may go on, else whole seconds to wait, as in `Retry-After`."""
        bucket = self._buckets.get(owner)
        if bucket is None:
            rate = self._limits.owners.get(owner, self._limits.rest)
            if not rate:
                return 0
            bucket = self._buckets[owner] = Bucket(rate, now)
        return math.ceil(bucket.take(now))

    def demand(self) -> dict[str, int]:
        """Calls by owner since this was last asked."""
        asked = {owner: bucket.asked for owner, bucket in self._buckets.items() if bucket.asked}
        for owner in asked:
            self._buckets[owner].asked = 0
        return asked
