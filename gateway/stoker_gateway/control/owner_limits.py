"""Deals the owners' rates to the proxies, and reads the file of rates again when it has changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stoker_gateway.link import Limits
from stoker_gateway.rates import NO_LIMIT, Rates, read_rates, shares
from stoker_sdk.errors import BadInput

log = logging.getLogger("stoker.rates")

STEP_SECONDS = 1.0


@dataclass(frozen=True)
class RateSettings:
    """`rest` in calls a second, for owners that the file does not name; `file` is empty where there is none.

    `gateways` have an equal part of each rate: they do not know of each other.
    """

    rest: float = NO_LIMIT
    file: str = ""
    gateways: int = 1


class OwnerLimits:
    """What is set, and what each proxy gets of it."""

    def __init__(self, settings: RateSettings) -> None:
        """Raises `BadInput` for a file that cannot be read."""
        self._path = Path(settings.file) if settings.file else None
        self._rest = settings.rest
        self._part = 1 / settings.gateways
        self._seen = self._stamp()
        self.rates = read_rates(self._path, settings.rest) if self._path else Rates(settings.rest)

    def refresh(self) -> None:
        """Take over what the file says now; one that cannot be read leaves what was."""
        stamp = self._stamp()
        if self._path is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.rates = read_rates(self._path, self._rest)
        except BadInput as error:
            log.error("the rates stay as they were: %s", error)
        else:
            log.info("rates of %d owners are read from %s", len(self.rates.owners), self._path)

    def deal(self, demands: Iterable[Mapping[str, int]]) -> list[Limits]:
        """The limits of each proxy, by what came to each in the last second."""
        asked = list(demands)
        if not asked:
            return []
        even = self._part / len(asked)
        named = [{owner: rate * even for owner, rate in self.rates.owners.items()} for _ in asked]
        for owner in {owner for demand in asked for owner in demand}:
            if rate := self.rates.of(owner):
                dealt = shares(rate * self._part, [demand.get(owner, 0) / STEP_SECONDS for demand in asked])
                for limits, share in zip(named, dealt, strict=True):
                    limits[owner] = share
        return [Limits(self.rates.rest * even, limits) for limits in named]

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self._path.stat() if self._path else None
        except OSError:
            found = None
        return (found.st_mtime_ns, found.st_ino) if found else (0, 0)
