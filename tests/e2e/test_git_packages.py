"""A function with packages of some weight: what a push installs and builds, it does once."""

from __future__ import annotations

from pathlib import Path

import pytest
from loads import elapsed_under
from running_platform import Platform
from working_copy import WorkingCopy, passing, stack

pytestmark = pytest.mark.slow

HANDLER = """
import pandas

TEXT = {text!r}


def handle(req):
    return f"{{TEXT}} {{pandas.Series([20, 22]).sum()}}"
"""
TEST = "from .handler import handle\n\n\ndef test_it_sums():\n    assert handle('').endswith(' 42')\n"


@pytest.mark.timeout(400)  # the first push fetches pandas
def test_a_changed_line_is_live_in_seconds_and_the_unchanged_function_is_not_built(
    platform: Platform, tmp_path: Path
) -> None:
    copy = WorkingCopy(platform, tmp_path / "frames", "packages/frames")
    copy.commit(
        **passing("greet", "hello "),
        frames__handlerDOTpy=HANDLER.format(text="one"),
        frames__handler_testDOTpy=TEST,
        frames__requirementsDOTtxt="pandas>=2.2,<4\n",
        stackDOTyml=stack("frames", "greet"),
    )
    assert copy.run("push", "-o", "wait", copy.url, "main", seconds=300).code == 0
    assert copy.answer("frames") == "one 42"
    copy.commit(frames__handlerDOTpy=HANDLER.format(text="two"))
    with elapsed_under(10):
        pushed = copy.push("-o", "wait")
    assert pushed.code == 0
    assert copy.answer("frames") == "two 42"
    assert any("packages: environment" in line and "is there already" in line for line in pushed.lines)
    assert [line for line in pushed.lines if line.startswith("greet: ")] == [
        f"greet: unchanged, live at {copy.runs()[0].functions[1].url}"
    ]
    assert [(each.name, each.state) for each in copy.runs()[0].functions] == [
        ("frames", "deployed"),
        ("greet", "unchanged"),
    ]
