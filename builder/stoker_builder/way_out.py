"""The way out for installers of pushed functions: they have a network of their own, and in it an HTTP proxy of ours
that leads to other machines and to nothing on this one, where the platform's own ports and private functions are.

What the operator has named may be reached all the same: the package index of the platform's own settings, and
`--build-reach`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from stoker_builder.guard_proxy import Parent, Target, Way, serve
from stoker_builder.network import own_network, within
from stoker_sdk.errors import BadInput
from stoker_sdk.processes import die_with_parent

_PORTS = {"http": 80, "https": 443}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class WayOut:
    """A network, the process at its exit, and the variables that tell programs of it."""

    network: int
    pid: int
    variables: Mapping[str, str]


@contextmanager
def way_out(environment: Mapping[str, str], reach: Iterable[str], user: int) -> Iterator[WayOut | None]:
    """None where the kernel does not let us. `environment` has the index's settings, `reach` more addresses
    (`HOST:PORT`); the proxy runs as `user`. Needs root, and a process with one thread.
    """
    named = {*map(read_target, reach), *_targets_in(environment)}
    parent = _parent_in(environment)
    with own_network() as network:
        if network is None:
            yield None
            return
        with within(network):
            # Go asks no proxy for what lies on its own machine.
            forwards = {target: _listener(target) for target in _distinct(named)}
            proxy = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = proxy.getsockname()[1]
        pid = _start(proxy, forwards, Way(frozenset(named), parent), user)
        try:
            yield WayOut(network, pid, _variables(f"http://127.0.0.1:{port}"))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def read_target(text: str) -> Target:
    """`HOST:PORT`. Raises `BadInput`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"{text[:100]!r} is not an address: write HOST:PORT, such as 127.0.0.1:3141")
    return Target(host.strip("[]").lower(), int(port))


def _targets_in(environment: Mapping[str, str]) -> Iterator[Target]:
    """The machines that the index's settings name, without the proxies, which lead to all that these may reach."""
    for name, value in environment.items():
        if name.lower().replace("-", "_").removeprefix("npm_config_") in (*_PROXIES, "proxy"):
            continue
        for word in value.replace(",", " ").replace("|", " ").split():
            try:
                parts = urlsplit(word)
                port = parts.port or _PORTS.get(parts.scheme, 0)
            except ValueError:
                continue
            if parts.hostname and port:
                yield Target(parts.hostname, port)


def _parent_in(environment: Mapping[str, str]) -> Parent | None:
    """The proxy by which the platform itself reaches the world."""
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        parts = urlsplit(environment.get(name, ""))
        if parts.scheme == "http" and parts.hostname:
            besides = environment.get("no_proxy", "") or environment.get("NO_PROXY", "")
            hosts = tuple(host.strip().lstrip("*.").lower() for host in besides.split(",") if host.strip())
            return Parent(Target(parts.hostname, parts.port or 80), parts.username or "", parts.password or "", hosts)
    return None


def _variables(address: str) -> dict[str, str]:
    proxies = {name: address for each in _PROXIES for name in (each, each.upper())}
    return proxies | {"no_proxy": "", "NO_PROXY": ""}


def _distinct(named: Iterable[Target]) -> Iterable[Target]:
    """Those of the loopback, without second names of the same address and port."""
    found: dict[tuple[IPv4Address | IPv6Address, int], Target] = {}
    for target in sorted(named, key=str):  # `localhost` comes last, and stays: it stands for both families
        if target.is_loopback:
            host = "127.0.0.1" if target.host == "localhost" else target.host
            found[ip_address(host), target.port] = target
    return found.values()


def _listener(target: Target) -> socket.socket:
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    return socket.create_server((target.host, target.port), family=family)


def _start(proxy: socket.socket, forwards: Mapping[Target, socket.socket], way: Way, user: int) -> int:
    """A process of its own, in the machine's network and without rights."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            die_with_parent()
            serve(proxy, forwards, way)
        finally:
            os._exit(1)
    for listener in (proxy, *forwards.values()):
        listener.close()
    return pid
