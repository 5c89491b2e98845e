"""What BuildKit does while it builds: its steps made into lines for a person, and into the reason when one fails.

BuildKit runs steps at the same time. Its clients say it in different forms (`docker_log.py`, `buildctl_log.py`); what
a person reads is the same.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from stoker_builder.errors import FailedTests
from stoker_builder.images.dockerfile import TEST_STAGE
from stoker_sdk.errors import StokerError

_OF_COMMAND: Final = re.compile(
    r"(?:executor failed running \[.*\]|process \".*\" did not complete successfully): (.*)", re.DOTALL
)
"""The failure of a `RUN`: the command, which is the step's title already, and the reason."""
_KEPT: Final = 20
_TITLE: Final = 160


@dataclass
class _Step:
    title: str
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))

    @property
    def is_internal(self) -> bool:
        return self.title.startswith("[internal]")

    @property
    def stage(self) -> str:
        """The name of its stage; empty for an unnamed one and for the builder's own steps. In `[PLATFORM STAGE 2/4]`
        the platform is left out where only one is built for.
        """
        inside = self.title.partition("]")[0].lstrip("[").split()
        return inside[-2] if len(inside) > 1 and "/" in inside[-1] else ""


class Steps:
    """Each method gives the lines that a person should see, if any. `key` is BuildKit's own name of a step."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._failed: tuple[_Step, str] | None = None

    @property
    def have_failed(self) -> bool:
        return self._failed is not None

    def knows(self, key: str) -> bool:
        return key in self._steps

    def begin(self, key: str, title: str) -> list[str]:
        if key in self._steps:
            return []
        step = self._steps[key] = _Step(" ".join(title.split())[:_TITLE])
        return [] if step.is_internal else [step.title]

    def print(self, key: str, line: str) -> list[str]:
        """A program of the step printed this."""
        if step := self._steps.get(key):
            step.last.append(line)
        return [line]

    def is_cached(self, key: str) -> list[str]:
        step = self._steps.get(key)
        return ["unchanged"] if step and not step.is_internal else []

    def fail(self, key: str, reason: str) -> None:
        if step := self._steps.get(key):
            self._failed = self._failed or (step, reason)

    def failure(self) -> StokerError | None:
        """Why the build failed, if one of its steps did."""
        if self._failed is None:
            return None
        step, reason = self._failed
        if step.stage == TEST_STAGE:
            return FailedTests(_with_last("its tests failed, so there is no image", step))
        command = _OF_COMMAND.match(reason)
        return StokerError(_with_last(f"{step.title} failed: {command[1] if command else reason[:300]}", step))


def _with_last(what: str, step: _Step) -> str:
    return "\n".join([f"{what}. The last lines:", *step.last]) if step.last else what
