"""What a Dockerfile says: as much of it as is needed to know whether its tests would run, and what it would fetch.

BuildKit makes only the stages that the last one needs, so a stage `test` that nothing needs would be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

TEST_STAGE: Final = "test"

FROM: Final = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE)
_FLAG: Final = re.compile(r"--(\S+)(?:\s+|$)")
_CONTINUED: Final = re.compile(r"\\[ \t]*$")


@dataclass(frozen=True)
class Stage:
    """Its name in lower case, or its number; and what it is made from: names of stages or of images."""

    name: str
    sources: frozenset[str]


def read_stages(dockerfile: str) -> list[Stage]:
    """The stages in their order. What is no Dockerfile gives none."""
    stages: list[Stage] = []
    for instruction in instructions(dockerfile):
        start = FROM.match(instruction)
        if start:
            stages.append(Stage((start[2] or str(len(stages))).lower(), frozenset({start[1].lower()})))
        elif stages:
            name, flags, _ = split(instruction)
            sources = {source.lower() for source in sources_of(name, flags)}
            stages[-1] = Stage(stages[-1].name, stages[-1].sources | sources)
    return stages


def leaves_out_tests(dockerfile: str) -> bool:
    """Whether there is a stage `test` that the last stage does not need."""
    stages = {stage.name: stage for stage in read_stages(dockerfile)}
    if TEST_STAGE not in stages:
        return False
    needed: set[str] = set()
    waiting = [next(reversed(stages))]
    while waiting:
        name = waiting.pop()
        if name in stages and name not in needed:
            needed.add(name)
            waiting += stages[name].sources
    return TEST_STAGE not in needed


def sources_of(name: str, flags: Sequence[str]) -> list[str]:
    """The stages and images that a COPY, ADD or RUN takes files from."""
    if name in ("COPY", "ADD"):
        return [flag.partition("=")[2] for flag in flags if flag.startswith("--from=")]
    if name == "RUN":
        return [text for flag in flags for key, text in mount_of(flag) if key == "from"]
    return []


def split(instruction: str) -> tuple[str, list[str], str]:
    """Its name in upper case, its flags (`--KEY=VALUE`), and what follows them."""
    name, *after = re.split(r"[\t ]+", instruction, maxsplit=1)
    rest = "".join(after).strip()
    flags = []
    while match := _FLAG.match(rest):
        flags.append(f"--{match[1]}")
        rest = rest[match.end() :]
    return name.upper(), flags, rest


def mount_of(flag: str) -> list[tuple[str, str]]:
    """The keys of a `--mount=`, in lower case, and their values, as often as they are there; none of another flag."""
    if not flag.startswith("--mount="):
        return []
    parts = (part.partition("=") for part in flag.removeprefix("--mount=").split(","))
    return [(key.lower(), text) for key, _, text in parts]


def instructions(dockerfile: str) -> Iterator[str]:
    """One line each: continued lines together as BuildKit puts them, comments left out."""
    begun = ""
    for line in dockerfile.split("\n"):
        text = line.rstrip("\r")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        text = text if begun else text.lstrip()
        continued = _CONTINUED.search(text)
        begun += text[: continued.start()] if continued else text
        if not continued:
            yield begun.rstrip(" \t")
            begun = ""
    if begun:
        yield begun.rstrip(" \t")
