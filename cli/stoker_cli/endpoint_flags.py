"""The flags of `stoker serve` about public endpoints: hosts, who is inside, rates, the certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from stoker_sdk.errors import BadInput, BadUsage

_LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class EndpointOptions:
    """The flags, checked. `port` is 0 where clients use that of --https."""

    domain: str = ""
    port: int = 0
    names: tuple[str, ...] = ()
    route_hosts: tuple[str, ...] = ()
    inside: tuple[str, ...] = _LOOPBACK
    rate: float = 0.0
    rates_file: Path | None = None
    gateways: int = 1
    certificate: tuple[Path, Path] | None = None

    @property
    def own_hosts(self) -> tuple[str, ...]:
        """Hosts at which the gateway itself is called."""
        return tuple(dict.fromkeys(name.lower() for name in (*self.names, *([self.domain] if self.domain else []))))

    @property
    def certificate_names(self) -> tuple[str, ...]:
        domain = (self.domain, f"*.{self.domain}") if self.domain else ()
        return tuple(dict.fromkeys((*self.names, *domain)))


def endpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--domain",
        metavar="DOMAIN[:PORT]",
        default="",
        help="Owners' functions are at https://OWNER.DOMAIN/FUNCTION; PORT is the one that clients use, if another.",
    ),
    click.option(
        "--route-host",
        "route_hosts",
        multiple=True,
        metavar="[OWNER=]HOST",
        help="A host that `routes` may name, of one owner or of all [any by password, none by a push to a forge].",
    ),
    click.option(
        "--inside",
        multiple=True,
        metavar="NETWORK",
        help="Clients there may call private functions too; this machine always may.",
    ),
    click.option("--owner-rate", default="none", help="Calls from outside for each owner, such as 100/s."),
    click.option(
        "--owner-rates",
        type=click.Path(path_type=Path),
        help="Lines OWNER RATE for single owners; read again when it changes.",
    ),
    click.option(
        "--gateways", type=click.IntRange(1), default=1, show_default=True, help="Among how many the rates are divided."
    ),
    click.option(
        "--tls-certificate",
        type=click.Path(path_type=Path),
        help="PEM chain for HTTPS, in place of one by the CA; with --tls-key.",
    ),
    click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM."),
)


def read_endpoint_options(values: Mapping[str, Any], names: tuple[str, ...]) -> EndpointOptions:
    """Raises `BadUsage`."""
    from stoker_gateway.rates import parse_rate, read_rates
    from stoker_sdk.addresses import check_host
    from stoker_sdk.origin import check_origin

    domain, port = _domain(values["domain"])
    certificate, key = values["tls_certificate"], values["tls_key"]
    if (certificate is None) != (key is None):
        raise BadUsage("--tls-certificate and --tls-key go together: give both or neither")
    rates_file: Path | None = values["owner_rates"]
    try:
        for given in values["route_hosts"]:
            owner, equals, host = given.rpartition("=")
            check_host(host)
            if equals:
                check_origin(owner, "any", "any")
        rate = parse_rate(values["owner_rate"])
        if rates_file is not None:
            read_rates(rates_file, rate)
    except BadInput as error:
        raise BadUsage(str(error)) from error
    return EndpointOptions(
        domain=domain,
        port=port,
        names=names,
        route_hosts=values["route_hosts"],
        inside=(*_LOOPBACK, *map(_network, values["inside"])),
        rate=rate,
        rates_file=rates_file.absolute() if rates_file else None,
        gateways=values["gateways"],
        certificate=(certificate.absolute(), key.absolute()) if certificate else None,
    )


def _domain(text: str) -> tuple[str, int]:
    from stoker_sdk.addresses import check_host

    if not text:
        return "", 0
    domain, colon, port = text.lower().partition(":")
    try:
        check_host(domain)
    except BadInput as error:
        raise BadUsage(f"--domain: {error}") from error
    if "." not in domain or domain.startswith("*."):
        raise BadUsage(f"--domain {domain}: name one with a dot, such as faas.example.org or stoker.localhost")
    if len(domain) > 189:
        raise BadUsage(f"--domain: {domain[:40]}… leaves no room for an owner's label: 189 characters are the most")
    if colon and not (port.isdigit() and 0 < int(port) < 65536):
        raise BadUsage(f"--domain: {port[:20]!r} is no port")
    return domain, int(port or 0)


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise BadUsage(f"--inside: {text[:60]!r} is no network: write 10.0.0.0/8 or one address ({error})") from None
