"""Many functions and shared folders in one repository: a push builds those whose inputs have changed, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_platform import Platform
from working_copy import WorkingCopy, stack

pytestmark = pytest.mark.slow

SHARING = "from .shared.words import WORD\n\n\ndef handle(req):\n    return WORD + req\n"
ALONE = "def handle(req):\n    return 'alone ' + req\n"
NAMES = tuple(f"f{number}" for number in range(6))
SHARE = {"f0", "f3"}


def sharing(*, for_all: bool) -> str:
    text = stack(*NAMES)
    if for_all:
        return text + "configuration:\n  copy: [shared]\n"
    for name in SHARE:
        text = text.replace(f"    image: {name}\n", f"    image: {name}\n    copy: [shared]\n")
    return text


def built(copy: WorkingCopy) -> set[str]:
    """What the newest run has not left as it was."""
    run = copy.runs()[0]
    assert run.state == "succeeded", run
    assert {each.name for each in run.functions} == set(NAMES)
    return {each.name for each in run.functions if each.state != "unchanged"}


def test_a_shared_folder_builds_who_names_it(platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(platform, tmp_path / "shop", "mono/shop")
    handlers = {f"{name}__handlerDOTpy": SHARING if name in SHARE else ALONE for name in NAMES}
    copy.commit(**handlers, shared__wordsDOTpy="WORD = 'one '\n", stackDOTyml=sharing(for_all=False))
    assert copy.push().code == 0
    assert built(copy) == set(NAMES)
    assert (copy.answer("f0"), copy.answer("f1")) == ("one you", "alone you")

    copy.commit(f1__handlerDOTpy=ALONE.replace("alone", "changed"))
    assert copy.push().code == 0
    assert built(copy) == {"f1"}

    copy.commit(shared__wordsDOTpy="WORD = 'two '\n", READMEDOTmd="of no function")
    assert copy.push().code == 0
    assert built(copy) == SHARE
    assert {copy.answer(name) for name in SHARE} == {"two you"}

    copy.commit(stackDOTyml=sharing(for_all=False) + "# nothing else\n")
    assert copy.push().code == 0
    assert built(copy) == set()

    copy.commit(stackDOTyml=sharing(for_all=True))  # as OpenFaaS has it: into every handler folder
    assert copy.push().code == 0
    assert built(copy) == set(NAMES) - SHARE
    copy.commit(shared__wordsDOTpy="WORD = 'three '\n")
    assert copy.push().code == 0
    assert built(copy) == set(NAMES)
    assert copy.answer("f3") == "three you"
