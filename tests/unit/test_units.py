"""Durations, quantities and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_sdk.errors import BadInput
from stoker_sdk.units import format_duration, now_rfc3339, parse_duration, parse_quantity, parse_rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0", 0),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("2h", 7200),
        ("1.5s", 1.5),
        (".5s", 0.5),
        (" 5s ", 5),
    ],
)
def test_durations_are_seconds_or_go_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "1x", "-5s", "5 s", "1m 30s", "s", "1e3", "٣"])
def test_what_is_no_duration_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(BadInput, match=r"timeout .* is not a duration"):
        parse_duration(text, "timeout")


@given(st.integers(min_value=0, max_value=10**7), st.integers(min_value=0, max_value=999))
def test_a_written_duration_reads_back(whole: int, thousandths: int) -> None:
    seconds = whole + thousandths / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "1m30s"), (0.5, "500ms"), (3600, "1h"), (0, "0ms"), (61.5, "1m1.5s"), (1, "1s")],
)
def test_durations_are_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("128Mi", 128 * 2**20),
        ("1G", 10**9),
        ("200m", Decimal("0.2")),
        ("0.5", Decimal("0.5")),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("2Ei", 2 * 2**60),
    ],
)
def test_quantities_are_those_of_kubernetes(text: str, number: Decimal) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "lots", "1x", "-1", "1 Gi", "Mi", "1KI", "1ki"])
def test_what_is_no_quantity_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"limits.memory {text!r} is not a quantity")):
        parse_quantity(text, "limits.memory")


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_a_quantity_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_quantity(f"{number}{unit}") == number * parse_quantity(f"1{unit}")


def test_times_have_a_zone() -> None:
    assert parse_rfc3339("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_rfc3339(now_rfc3339()).tzinfo is not None
    for text in ("2026-01-31T12:00:00", "yesterday", ""):
        with pytest.raises(BadInput, match="is not a time"):
            parse_rfc3339(text)
