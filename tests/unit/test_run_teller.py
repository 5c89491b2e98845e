"""What the process of a run says of its stages."""

from __future__ import annotations

import os

import msgspec

from stoker_builder.pipeline.job import Report
from stoker_builder.pipeline.run.teller import Teller
from stoker_sdk.runs import FunctionResult


def test_a_build_that_says_how_long_its_tests_took_is_two_stages() -> None:
    ours, theirs = os.pipe()
    teller = Teller(theirs)
    teller.expect([FunctionResult("greet")])
    with teller.timed("checkout"):
        pass
    with teller.timed("build", "greet"):
        pass
    teller.split("build", {"tests": 0.25}, "greet")
    teller.end("succeeded", "")
    os.close(theirs)
    with os.fdopen(ours, "rb") as reports:
        last = msgspec.json.decode(reports.readlines()[-1], type=Report)
    assert last.functions is not None
    assert list(last.seconds) == ["checkout"]
    assert last.functions[0].seconds == {"build": 0.0, "tests": 0.25}
