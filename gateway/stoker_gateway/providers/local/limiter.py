"""Puts replicas into control groups where that is possible, and says in words what limits them."""

from __future__ import annotations

import logging

from stoker_gateway.providers.local.launch import describe_limits
from stoker_sdk.cgroups import Cgroups, Limits

log = logging.getLogger("stoker.limiter")


class Limiter:
    """`cgroups` is None where replicas must limit themselves."""

    def __init__(self, cgroups: Cgroups | None) -> None:
        self._cgroups = cgroups
        self._grouped: set[str] = set()

    def prepare(self, id: str, limits: Limits) -> str:
        """Make what the replica needs before it is forked; answers the line for `describe`."""
        if self._cgroups is not None and (limits.memory or limits.cores):
            self._cgroups.make(id, limits)
            self._grouped.add(id)
        return self.describe(limits)

    def describe(self, limits: Limits) -> str:
        return describe_limits(limits, self._cgroups is not None)

    def add(self, id: str, pid: int) -> None:
        if self._cgroups is not None and id in self._grouped:
            try:
                self._cgroups.add(id, pid)
            except OSError as error:
                log.warning("%s is not limited: %s", id, error)

    def ran_out_of_memory(self, id: str) -> bool:
        """Whether its memory limit was what ended the replica. Only a control group tells."""
        return self._cgroups is not None and self._cgroups.ran_out_of_memory(id)

    def remove(self, id: str) -> None:
        """Also for replicas that an earlier control process has put into their groups."""
        if self._cgroups is not None:
            self._grouped.discard(id)
            self._cgroups.remove(id)

    def tidy(self) -> None:
        """Remove every group without a process: a control process that was killed could not."""
        if self._cgroups is not None:
            self._cgroups.clear()
