"""Which addresses callbacks may call: the guard between a caller's URL and the networks that this machine can reach.

The guard resolves a host itself and hands out only addresses that it has checked, and the client dials these and no
others. So a name that resolves differently a moment later (DNS rebinding) gains nothing.

`allow` and `deny` are lists of host globs (`*.example.org`) and networks (`10.1.0.0/16`, `192.0.2.7`); `allow` also
knows the words `public` (what it is when nothing is given) and `private`. What `allow` does not name is refused, and
deny wins. A glob lets its hosts have public and private addresses; special ones (link-local with the clouds'
metadata, multicast, reserved) need their network named.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from stoker_sdk.errors import BadInput, Unavailable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Kind = Literal["public", "private", "special"]
Resolver = Callable[[str], Iterable[str]]
"""The addresses of a host name. Runs in a thread; raises `OSError`."""

RESOLVE_SECONDS: Final = 10.0

_THREADS = 16
_GLOB = re.compile(r"[a-z0-9*?._-]{1,253}")
_MISTAKE = re.compile(r"[0-9.]+|public|private")  # would be the glob of a host that nobody has
_SPECIAL: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "100.100.100.200/32",  # Alibaba's metadata
        "168.63.129.16/32",  # Azure's host: a public address that only its guests reach
        "fd00:ec2::/32",  # Amazon's metadata
        "64:ff9b:1::/48",  # local translation: leads wherever its operator likes
        "2001::/32",  # Teredo
        "::/96",  # with an IPv4 address at its end; long deprecated
    )
)
_LOOPBACK = ip_address("::1")
_NAT64 = ip_network("64:ff9b::/96")


class Refused(BadInput):
    """The address may not be called, now and later."""

    code = "callback-refused"


class Guard:
    """Says which addresses of a host may be called. One for all callbacks of a process.

    `private_allowed` adds `private` to what is allowed: loopback, private networks and the machine's own addresses.
    Raises `BadInput` for entries that are neither glob nor network.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        *,
        private_allowed: bool = False,
        resolver: Resolver | None = None,
        own: Callable[[Address], bool] | None = None,
    ) -> None:
        words, self._allowed_hosts, self._allowed = _entries(allow, ("public", "private"))
        _, self._denied_hosts, self._denied = _entries(deny, ())
        if not (words or self._allowed_hosts or self._allowed):
            words = {"public"}
        self._kinds = words | ({"private"} if private_allowed else set())
        self._resolver = resolver or system_resolver
        self._own = own or is_own_address
        self._threads = ThreadPoolExecutor(_THREADS, "resolve")

    def close(self) -> None:
        """Lookups that run are left to end by themselves: a thread cannot be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, host: str) -> list[Address]:
        """The addresses of a host (a name, or an address without brackets) that may be called.

        Raises `Refused` if there is none, and `Unavailable` if the name cannot be resolved now.
        """
        host = host.lower().removesuffix(".")
        if _matches(host, self._denied_hosts):
            raise Refused(f"callbacks to {host} are denied by the operator")
        literal = as_address(host)
        found = [literal] if literal else await self._resolve(host)
        reasons = {address: self._refusal(host, address) for address in found}
        allowed = [address for address, reason in reasons.items() if not reason]
        if not allowed:
            raise Refused(next(reason for reason in reasons.values() if reason))
        return allowed

    async def _resolve(self, host: str) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                texts = await loop.run_in_executor(self._threads, lambda: list(self._resolver(host)))
        except TimeoutError:
            raise Unavailable(f"{host} could not be resolved within {RESOLVE_SECONDS:g} s") from None
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"{host} could not be resolved: {getattr(error, 'strerror', None) or error}") from None
        found = [address for text in texts if (address := as_address(text))]
        if not found:
            raise Unavailable(f"{host} has no address")
        return found

    def _refusal(self, host: str, address: Address) -> str:
        """Why the address may not be called; empty if it may."""
        where = f"{host} is {address}" if host != str(address) else host
        forms = {address, inner(address)}
        if any(_within(form, self._denied) for form in forms):
            return f"callbacks to {where} are denied by the operator"
        if any(_within(form, self._allowed) for form in forms):
            return ""
        kind = self._kind(address)
        if kind in self._kinds or (kind != "special" and _matches(host, self._allowed_hosts)):
            return ""
        return f"callbacks to {where} are not allowed: {_ADVICE[kind]}"

    def _kind(self, address: Address) -> Kind:
        kind = kind_of(address)
        return "private" if kind == "public" and self._own(inner(address)) else kind


_ADVICE: Final[dict[Kind, str]] = {
    "public": "it is not in the operator's list of allowed addresses",
    "private": "the address is private; start the platform with --allow-private-callbacks, or allow its network",
    "special": "the address is link-local, multicast or reserved; the operator can allow its network by name",
}


def kind_of(address: Address) -> Kind:
    """Of an address that carries an IPv4 address inside, the kind of that one."""
    inside = inner(address)
    if inside != address:
        return kind_of(inside)
    if address.is_loopback:
        return "private"
    special = address.is_unspecified or address.is_multicast or address.is_link_local or address.is_reserved
    if special or _within(address, _SPECIAL):
        return "special"
    if isinstance(address, IPv6Address) and address.is_site_local:
        return "private"
    return "public" if address.is_global else "private"


def inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to (mapped, NAT64, 6to4); otherwise the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def as_address(text: str) -> Address | None:
    """The address that a text is, without zone; None if it is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def system_resolver(host: str) -> list[str]:
    """What this machine's own resolver says, each address once."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_own_address(address: Address) -> bool:
    """Whether this machine itself has the address: then the kernel would also send from it. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return as_address(probe.getsockname()[0]) == address
    except OSError:
        return False


def _entries(texts: Iterable[str], words: tuple[str, ...]) -> tuple[set[str], list[str], list[Network]]:
    """Sorted into words, host globs and networks."""
    found: tuple[set[str], list[str], list[Network]] = set(), [], []
    for text in (text.strip().lower() for text in texts):
        network = _network(text)
        if text in words:
            found[0].add(text)
        elif network is not None:
            found[2].append(network)
        elif _GLOB.fullmatch(text) and not _MISTAKE.fullmatch(text):
            found[1].append(text.removesuffix("."))
        else:
            raise BadInput(f"{text[:80]!r} is neither a host (*.example.org) nor a network (10.0.0.0/8)")
    return found


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _matches(host: str, globs: list[str]) -> bool:
    return any(fnmatchcase(host, glob) for glob in globs)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
