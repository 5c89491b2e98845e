"""What control does for the broker now and then, beside what `calls.py` answers: mend it, sweep its object store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.body_sweep import sweep
from stoker_gateway.queue.room import Mender
from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.control")

_LOOK_SECONDS: Final = 5.0
_SWEEP_EVERY: Final = 120
"""Looks: ten minutes."""


async def keep_up(client: Client, mender: Mender | None) -> None:
    """Never returns. `mender` is None for the user's own broker."""
    looks = 0
    while True:
        try:
            if mender is not None:
                await mender.look(client)
            if looks % _SWEEP_EVERY == 0:
                await sweep(client)
            looks += 1
        except Unavailable as error:
            log.debug("upkeep: %s", error)
        await asyncio.sleep(_LOOK_SECONDS)
