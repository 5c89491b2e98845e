"""One small file from a web address, such as a stack or a function store: bounded in size, time and redirects."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError

from stoker_sdk import __version__
from stoker_sdk.errors import BadInput, NotFound, TooLarge, Unavailable

SCHEMES = ("http", "https")
FETCH_TIMEOUT = 120.0
"""Seconds for the whole of it (contract section 9.1)."""

_CONNECT_TIMEOUT = 10.0
_REDIRECTS = 5


def is_url(text: str) -> bool:
    """Whether a text is meant as an address and not as a path: `https://…`, and also `ftp://…`."""
    return "://" in text


def fetch(url: str, environment: Mapping[str, str], limit: int, timeout: float = FETCH_TIMEOUT) -> bytes:
    """The body of a GET, of at most `limit` bytes, within `timeout` seconds in all.

    Proxies are those of the environment (`https_proxy`, `no_proxy`). Raises `BadInput` for what is no http or
    https address, `TooLarge`, `NotFound`, and `Unavailable` for everything that another try may mend.
    """
    parts = _checked(url)
    shown = without_password(url)
    headers = {"User-Agent": f"stoker/{__version__}"}
    if parts.username is not None:
        headers |= urllib3.util.make_headers(basic_auth=f"{parts.username}:{parts.password or ''}")
    try:
        with _pool(parts.scheme, parts.hostname or "", environment) as pool:
            return _body(pool, url, shown, headers, limit, time.monotonic() + timeout)
    except LocationParseError:
        raise BadInput(f"{shown} is not an address: write it as https://HOST/PATH") from None
    except MaxRetryError as error:
        raise Unavailable(f"{shown} cannot be fetched: {_reason(error.reason or error)}") from None
    except HTTPError as error:
        raise Unavailable(f"{shown} cannot be fetched: {_reason(error)}") from None


def without_password(url: str) -> str:
    """The address as messages may show it."""
    try:
        parts = urlsplit(url)
        if parts.username is None:
            return url[:200]
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the address"
    return urlunsplit(parts._replace(netloc=netloc))[:200]


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() or not character.isprintable() for character in url):
        raise BadInput(f"{without_password(url)!r} cannot be fetched: only http:// and https:// addresses can")
    return parts


def _body(
    pool: urllib3.PoolManager, url: str, shown: str, headers: Mapping[str, str], limit: int, deadline: float
) -> bytes:
    retries = urllib3.Retry(total=_REDIRECTS, connect=0, read=0, redirect=_REDIRECTS, status=0, other=0)
    left = max(0.1, deadline - time.monotonic())
    timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT, left), read=left)
    response = pool.request("GET", url, headers=headers, retries=retries, timeout=timeout, preload_content=False)
    try:
        if response.status in (404, 410):
            raise NotFound(f"{shown} does not exist (status {response.status})")
        if response.status != 200:
            raise Unavailable(f"{shown} answered with status {response.status}")
        body = bytearray()
        while piece := response.read1(64 << 10):
            body += piece
            if len(body) > limit:
                raise TooLarge(f"{shown} is larger than {limit >> 20} MiB")
            if time.monotonic() > deadline:
                raise Unavailable(f"{shown} did not come to its end in time")
        return bytes(body)
    finally:
        response.close()


def _pool(scheme: str, host: str, environment: Mapping[str, str]) -> urllib3.PoolManager:
    proxy = environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY", "")
    if proxy and not _is_direct(host, environment.get("no_proxy") or environment.get("NO_PROXY", "")):
        return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}")
    return urllib3.PoolManager()


def _is_direct(host: str, no_proxy: str) -> bool:
    suffixes = [part.strip().lstrip(".") for part in no_proxy.split(",") if part.strip()]
    return any(suffix == "*" or host == suffix or host.endswith(f".{suffix}") for suffix in suffixes)


def _reason(error: object) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]
