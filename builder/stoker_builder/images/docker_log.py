"""The lines of `docker build --progress=plain`.

Every line is marked with the number of a step (`#7`): a title, what its program prints behind the seconds since it
began, `CACHED` or `DONE` or `ERROR: …`, and the builder's own remarks.
"""

from __future__ import annotations

import re
from typing import Final

from stoker_builder.images.steps import Steps
from stoker_sdk.errors import StokerError

_STEP: Final = re.compile(r"#(\d+) (.*)")
_PRINTED: Final = re.compile(r"\d+\.\d+(?: (.*))?$")


class BuildLog:
    """Takes lines as they come."""

    def __init__(self) -> None:
        self._steps = Steps()

    def lines(self, line: str) -> list[str]:
        """What a person should see of it, if anything."""
        found = _STEP.match(line)
        if found is None:
            return [line] if line.strip() and not self._steps.have_failed else []
        number, text = found[1], found[2]
        if not self._steps.knows(number):
            return self._steps.begin(number, text)
        printed = _PRINTED.match(text)
        if printed:
            return self._steps.print(number, printed[1] or "")
        if text.startswith("ERROR"):
            self._steps.fail(number, text.removeprefix("ERROR: "))
        return self._steps.is_cached(number) if text == "CACHED" else []

    def failure(self) -> StokerError | None:
        """Why the build failed, if one of its steps did."""
        return self._steps.failure()
