"""Which gateway a command talks to, and in what form its address is written (contract section 3.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from stoker_sdk.errors import BadInput

DEFAULT_GATEWAY = "http://127.0.0.1:8080"


def choose_gateway(flag: str, stack: str, environment: Mapping[str, str]) -> str:
    """The flag, else the stack's gateway, else `OPENFAAS_URL`, else the default; normalized.

    A stack that names the default address counts as not naming one, as for faas-cli: `new` writes that line
    into every stack file, and `OPENFAAS_URL` could otherwise never be used with one.
    """
    named = normalize_gateway(stack) if stack else ""
    if flag:
        return normalize_gateway(flag)
    if named and named != DEFAULT_GATEWAY:
        return named
    return normalize_gateway(environment.get("OPENFAAS_URL") or DEFAULT_GATEWAY)


def normalize_gateway(address: str) -> str:
    """Lower-case, with a scheme and without a trailing `/`: the form under which credentials are stored.

    Raises `BadInput` for what is no http or https address.
    """
    text = address.strip().lower()
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in url) or parts.query or parts.fragment or parts.username:
        raise BadInput(f"gateway {address[:120]!r} is not an address: write it as https://HOST:PORT")
    return url


def is_loopback(gateway: str) -> bool:
    """Whether the gateway is on this machine by its address: `localhost`, or a loopback IP."""
    host = urlsplit(gateway).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def function_url(gateway: str, name: str, namespace: str) -> str:
    """Where a function is called; the namespace is named unless it is the default one (empty)."""
    return f"{gateway}/function/{name}.{namespace}" if namespace else f"{gateway}/function/{name}"
