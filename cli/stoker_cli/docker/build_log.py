"""What BuildKit prints while it builds, made into lines for a person, and into the reason when it fails.

Its plain output marks every line with the number of a step (`#7`), and runs steps at the same time: a title, what its
program prints behind the seconds since it began, `CACHED` or `DONE` or `ERROR: …`, and the builder's own remarks.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from stoker_builder.errors import FailedTests
from stoker_cli.docker.dockerfile import TEST_STAGE
from stoker_sdk.errors import StokerError

_STEP = re.compile(r"#(\d+) (.*)")
_PRINTED = re.compile(r"\d+\.\d+(?: (.*))?$")
_OF_COMMAND = re.compile(r"(?:executor failed running \[.*\]|process \".*\" did not complete successfully): (.*)")
"""The failure of a `RUN`: the command, which is the step's title already, and the reason."""

_KEPT = 20
_TITLE = 160


@dataclass
class _Step:
    title: str
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))

    @property
    def stage(self) -> str:
        """The name of its stage; empty for an unnamed one and for the builder's own steps. In `[PLATFORM STAGE 2/4]`
        the platform is left out where only one is built for.
        """
        inside = self.title.partition("]")[0].lstrip("[").split()
        return inside[-2] if len(inside) > 1 and "/" in inside[-1] else ""


class BuildLog:
    """Takes lines as they come."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._failed: tuple[_Step, str] | None = None

    def lines(self, line: str) -> list[str]:
        """What a person should see of it, if anything."""
        found = _STEP.match(line)
        if found is None:
            return [line] if line.strip() and not self._failed else []
        number, text = found[1], found[2]
        step = self._steps.get(number)
        if step is None:
            title = " ".join(text.split())[:_TITLE]
            self._steps[number] = _Step(title)
            return [] if title.startswith("[internal]") else [title]
        return self._of_step(step, text)

    def failure(self) -> StokerError | None:
        """Why the build failed, if one of its steps did."""
        if self._failed is None:
            return None
        step, reason = self._failed
        if step.stage == TEST_STAGE:
            return FailedTests(_with_last("its tests failed, so there is no image", step))
        command = _OF_COMMAND.match(reason)
        return StokerError(_with_last(f"{step.title} failed: {command[1] if command else reason[:300]}", step))

    def _of_step(self, step: _Step, text: str) -> list[str]:
        printed = _PRINTED.match(text)
        if printed:
            step.last.append(printed[1] or "")
            return [printed[1] or ""]
        if text.startswith("ERROR"):
            self._failed = self._failed or (step, text.removeprefix("ERROR: "))
        return ["unchanged"] if text == "CACHED" and not step.title.startswith("[internal]") else []


def _with_last(what: str, step: _Step) -> str:
    return "\n".join([f"{what}. The last lines:", *step.last]) if step.last else what
