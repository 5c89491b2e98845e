"""Other programs: their lines, their failures, and their time."""

from __future__ import annotations

import os

import pytest

from stoker_sdk.errors import StokerError
from stoker_sdk.programs import follow, output_of


def test_a_program_that_takes_too_long_is_stopped_and_said() -> None:
    lines: list[str] = []
    with pytest.raises(StokerError, match=r"`sh -c echo begun; exec sleep 60` took longer than 0.3 seconds"):
        follow(["sh", "-c", "echo begun; exec sleep 60"], lines.append, os.environ, seconds=0.3)
    assert lines == ["begun"]


def test_one_that_ends_in_time_is_not() -> None:
    lines: list[str] = []
    follow(["echo", "done"], lines.append, os.environ, seconds=60)
    assert lines == ["done"] and output_of(["echo", " x "], os.environ) == "x"


def test_a_failure_has_the_last_line() -> None:
    with pytest.raises(StokerError, match="failed with exit code 3: because"):
        follow(["sh", "-c", "echo first; echo because >&2; exit 3"], lambda _: None, os.environ)
