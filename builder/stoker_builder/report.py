"""What a build tells whoever started it: lines of JSON on standard output (see `__main__` for their
shapes).
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping

import msgspec

from stoker_builder.build_secrets import HIDDEN
from stoker_builder.errors import Cancelled

MAX_LINE = 8192
"""Characters of one log line; what a program prints beyond it in one line helps nobody."""


class Report:
    """Writes to a pipe whose reader may go away: then nobody waits for the build, and it is `Cancelled`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hidden: tuple[str, ...] = ()

    def hide(self, texts: Iterable[str]) -> None:
        """From now on these texts are left out of whatever is told, the first ones first."""
        self._hidden = tuple(texts)

    def log(self, text: str) -> None:
        """One line of the build's log."""
        text = self._without_hidden(text)
        self._send({"log": text if len(text) <= MAX_LINE else text[:MAX_LINE] + " ..."})

    def result(self, image: str, cached: bool, seconds: Mapping[str, float]) -> None:
        """The end of a build that worked: the artefact's reference, and how long parts of it took."""
        self._send({"image": image, "cached": cached, "seconds": seconds})

    def failure(self, message: str, code: str) -> None:
        """The end of one that did not."""
        self._send({"error": self._without_hidden(message), "code": code})

    def check_reader(self) -> None:
        """Raise `Cancelled` if nobody reads any more."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
            raise Cancelled

    def _without_hidden(self, text: str) -> str:
        for hidden in self._hidden:
            text = text.replace(hidden, HIDDEN)
        return text

    def _send(self, line: Mapping[str, object]) -> None:
        data = msgspec.json.encode(line) + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            raise Cancelled from None
