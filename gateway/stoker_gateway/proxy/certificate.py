"""The certificate that a proxy shows, read again when its files have changed: connections go on, new ones see it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

log = logging.getLogger("stoker.proxy")

_LOOK_SECONDS: Final = 2.0


class Certificate:
    """`context` is for the listeners. Raises `OSError` for files that are no certificate with its key."""

    def __init__(self, chain: str, key: str) -> None:
        self._chain, self._key = Path(chain), Path(key)
        self._seen = self._stamp()
        self.context = self._load()

    def keep_fresh(self) -> None:
        """Look now and then, for as long as the loop runs."""
        self._look()
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, self.keep_fresh)

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._load()  # apart, since a pair that does not fit would spoil the context in use
            self.context.load_cert_chain(self._chain, self._key, password=_no_password)
        except OSError as error:  # between the writes of the two files they do not fit
            log.warning("the certificate %s stays as it was: %s", self._chain, error)
        else:
            log.info("the certificate %s is read again", self._chain)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._chain, self._key, password=_no_password)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _stamp(self) -> tuple[int, ...]:
        try:
            stats = [path.stat() for path in (self._chain, self._key)]
        except OSError:
            return ()
        return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_ino))


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    return ""
