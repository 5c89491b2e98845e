"""The gateway's own builder: it builds artefacts, and keeps them, so there is nothing to push."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO

from stoker_builder.errors import FailedBuild
from stoker_builder.images.builder import Built, Order
from stoker_sdk.messages import BuildLine
from stoker_sdk.rollout import Progress


class LocalBuilder:
    """`send` is `ControlClient.build`."""

    def __init__(self, send: Callable[[IO[bytes]], Iterable[BuildLine]]) -> None:
        self._send = send

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        """Raises `FailedBuild`, and what `send` raises. Unchanged sources give the same image, and build nothing."""
        if order.request.replaced:
            progress.log(f"the gateway's own template {order.request.replaced.name} takes the place of the pulled one")
        with order.request.packed() as archive:
            for line in self._send(archive):
                if line.error:
                    raise FailedBuild(line.error, line.code)
                if line.image:
                    progress.log(f"built {line.image}{' (unchanged)' if line.cached else ''}")
                    return Built(line.image, line.seconds)
                progress.log(line.log)
        message = "the build broke off before it had a result: try again, and look at the platform's log"
        raise FailedBuild(message, "unavailable")
