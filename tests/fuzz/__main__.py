"""`make fuzz`: rounds of every target against one real platform, until the time is over. See README.md beside it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "integration"), str(TESTS / "e2e"), str(Path(__file__).parent)]

import api  # noqa: E402
import stacks  # noqa: E402
import tars  # noqa: E402
from running_platform import Platform  # noqa: E402
from soundness import Watch  # noqa: E402

import wire  # noqa: E402

Round = Callable[[Platform], int]
"""One round; returns how many inputs it tried, and raises for the first that shows a fault."""

TARGETS: dict[str, Round] = {
    "api": api.fuzz,
    "stacks": stacks.fuzz,
    "tars": tars.fuzz,
    "builds": tars.fuzz_builds,
    "wire": wire.fuzz,
}


@dataclass
class Tally:
    tried: int = 0
    findings: dict[str, str] = field(default_factory=dict)

    def add(self, error: BaseException) -> None:
        """The text of one finding, by what it is, so that the same one is not told a hundred times."""
        text = "".join(traceback.format_exception(error))
        kind = traceback.format_exception_only(error)[0][:160]
        if kind not in self.findings:
            self.findings[kind] = text
            print(f"\nFOUND\n{text[-6000:]}", flush=True)


def run(seconds: float, chosen: list[str]) -> dict[str, Tally]:
    tallies = {name: Tally() for name in chosen}
    platform = Platform(proxies=2)
    end = time.monotonic() + seconds
    try:
        watch = Watch(platform.start())
        wire.prepare(platform)
        while time.monotonic() < end:
            for name, tally in tallies.items():
                if time.monotonic() < end:
                    play(name, tally, platform, watch)
            left = max(0, end - time.monotonic())
            print(f"{left:5.0f} s left: " + ", ".join(f"{n} {t.tried}" for n, t in tallies.items()), flush=True)
    finally:
        platform.delete()
    return tallies


def play(name: str, tally: Tally, platform: Platform, watch: Watch) -> None:
    try:
        tally.tried += TARGETS[name](platform)
    except Exception as error:
        tally.add(error)
    try:
        watch.check()
    except AssertionError as error:
        tally.add(error)


def main() -> int:
    chosen = sys.argv[1:] or list(TARGETS)
    tallies = run(float(os.environ.get("FUZZ_SECONDS", "600")), chosen)
    print("\n" + "\n".join(f"{name}: {t.tried} inputs, {len(t.findings)} findings" for name, t in tallies.items()))
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
