"""Which addresses are this machine's, or of what is its alone: containers, a cloud's metadata."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Final

_METADATA: Final = frozenset(map(ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))
"""Of clouds (Azure, Alibaba, Amazon, Google), where it is not link-local."""
_INTERFACES: Final = Path("/sys/class/net")
_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B


def is_this_machine(address: str) -> bool:
    """Whether packets to it stay here, as those to containers do, or go to what is the machine's alone, such as a
    cloud's metadata.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast:
        return True
    if found in _METADATA or any(found in network for network in _networks_inside()):
        return True
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(found), 0))  # the kernel binds to its own addresses only
        except OSError:
            return False
    return True


def _networks_inside() -> list[IPv4Network]:
    """Of bridges that no wire leads to: there a Docker Engine has its containers (netdevice(7))."""
    found = []
    for bridge in _INTERFACES.glob("*/bridge"):
        wires = [port for port in (bridge.parent / "brif").glob("*") if (_INTERFACES / port.name / "device").exists()]
        if not wires:
            found += _networks_of(bridge.parent.name)
    return found


def _networks_of(interface: str) -> list[IPv4Network]:
    name = struct.pack("256s", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            address, mask = (fcntl.ioctl(sock, what, name)[20:24] for what in (_SIOCGIFADDR, _SIOCGIFNETMASK))
        except OSError:
            return []  # it has none
    return [IPv4Network((socket.inet_ntoa(address), socket.inet_ntoa(mask)), strict=False)]
