"""A function with large packages: they are installed once, and a line that changes is live in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from running_platform import Platform
from working_copy import WorkingCopy, stack

pytestmark = pytest.mark.slow

HANDLER = "import pandas\n\n\ndef handle(req):\n    return {answer!r} + str(pandas.Series([1, 2]).sum())\n"
TEST = "from .handler import handle\n\n\ndef test_it_adds():\n    assert handle('').endswith('3')\n"


@pytest.mark.timeout(300)
def test_one_line_of_a_function_with_pandas_is_live_in_ten_seconds(platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(platform, tmp_path / "sums", "packages/sums")
    copy.commit(
        sums__handlerDOTpy=HANDLER.format(answer="first "),
        sums__handler_testDOTpy=TEST,
        sums__requirementsDOTtxt="pandas\n",
        stackDOTyml=stack("sums"),
    )
    assert copy.push().code == 0
    assert copy.answer("sums") == "first 3"
    taken = []
    for answer in ("second ", "third ", "fourth "):  # the best of three: others use this machine too
        copy.commit(sums__handlerDOTpy=HANDLER.format(answer=answer))
        began = time.monotonic()
        pushed = copy.push()
        assert copy.answer("sums") == f"{answer}3"
        taken.append(time.monotonic() - began)
        packages = [line for line in pushed.lines if line.startswith("sums: packages:")]
        assert len(packages) == 1 and packages[0].endswith("is there already")
        assert any("@sha256:" in line for line in pushed.lines)
    print(f"push to new answer: {[f'{seconds:.1f} s' for seconds in taken]}")
    assert min(taken) < 10
