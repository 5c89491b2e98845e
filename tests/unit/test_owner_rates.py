"""Rates of owners: how they are written, dealt to proxies, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.control.owner_limits import OwnerLimits, RateSettings
from stoker_gateway.link import Limits
from stoker_gateway.proxy.guard import Bucket, OwnerRates
from stoker_gateway.rates import Rates, parse_rate, parse_rates, shares
from stoker_sdk.errors import BadInput


@pytest.mark.parametrize(
    ("text", "rate"), [("100/s", 100.0), ("600/m", 10.0), ("36/h", 0.01), ("0.5/s", 0.5), ("none", 0.0)]
)
def test_a_rate_is_calls_a_second(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "1e9/s", "100/d", "NaN/s", "100/s ", "9999999999/s"])
def test_a_rate_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="rate"):
        parse_rate(text)


def test_a_file_names_owners_in_any_case() -> None:
    text = "# owners\nAlice 500/s\n\nbob none # friend\n"
    assert parse_rates(text, 100.0, "f") == Rates(100.0, {"alice": 500.0, "bob": 0.0})
    with pytest.raises(BadInput, match=r"^f:2: rate 'lots'"):
        parse_rates("alice 1/s\nbob lots\n", 0.0, "f")
    with pytest.raises(BadInput, match=r"^f:1: write OWNER and RATE"):
        parse_rates("alice\n", 0.0, "f")


@given(st.floats(0.001, 1e6), st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_shares_are_the_rate_together_and_nobody_starves(rate: float, demands: list[float]) -> None:
    dealt = shares(rate, demands)
    assert sum(dealt) == pytest.approx(rate)
    for share, demand in zip(dealt, demands, strict=True):
        assert share >= min(demand, rate / len(demands)) * 0.96 * (1 - 1e-9)
        assert share > 0  # which would be no limit


def test_shares_follow_the_demand() -> None:
    assert shares(100, [0, 0]) == [50, 50]
    assert shares(100, [500, 0]) == [98, 2]
    assert shares(100, [500, 10]) == [88, 12]
    assert shares(100, [20, 10]) == [55, 45]


def test_limits_are_dealt_to_those_proxies_that_have_the_calls() -> None:
    limits = OwnerLimits(RateSettings(100.0))
    assert limits.deal([]) == []
    assert limits.deal([{}, {}]) == [Limits(50.0, {}), Limits(50.0, {})]
    assert limits.deal([{"alice": 400}, {}]) == [Limits(50.0, {"alice": 98.0}), Limits(50.0, {"alice": 2.0})]


def test_gateways_divide_a_rate() -> None:
    limits = OwnerLimits(RateSettings(100.0, gateways=2))
    assert limits.deal([{"alice": 400}]) == [Limits(50.0, {"alice": 50.0})]


def test_the_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    file.write_text("alice 10/s\n")
    limits = OwnerLimits(RateSettings(1.0, str(file)))
    for text, rate in (("alice 20/s\n", 20.0), ("alice 2O/s\n", 20.0), ("bob 5/s\n", 1.0)):
        other = tmp_path / "new"
        other.write_text(text)
        other.replace(file)
        limits.refresh()
        assert limits.rates.of("alice") == rate


def test_a_bucket_gives_its_rate_and_a_second_of_it_at_once() -> None:
    bucket = Bucket(10.0, 0.0)
    assert sum(not bucket.take(0.0) for _ in range(100)) == 10
    assert bucket.take(0.0) == pytest.approx(0.1)
    passed = sum(not bucket.take(step / 100) for step in range(1, 1001))
    assert 99 <= passed <= 101


def test_a_slow_rate_lets_one_call_through_and_says_when_the_next_may_come() -> None:
    rates = OwnerRates()
    assert rates.wait_of("alice", 0.0) == 0
    rates.set(Limits(0.1, {"bob": 0.0}))
    assert rates.limits_anybody
    assert rates.wait_of("alice", 0.0) == 0
    assert rates.wait_of("alice", 0.0) == 10
    assert rates.wait_of("alice", 9.5) == 1
    assert rates.wait_of("alice", 10.0) == 0
    assert [rates.wait_of("bob", 0.0) for _ in range(5)] == [0] * 5
    assert rates.demand() == {"alice": 4}
    assert rates.demand() == {}


def test_limits_that_are_lifted_count_no_more() -> None:
    rates = OwnerRates()
    rates.set(Limits(1.0, {}))
    assert [rates.wait_of("alice", 0.0) for _ in range(2)] == [0, 1]
    rates.set(Limits(0.0, {}))
    assert not rates.limits_anybody
    assert rates.wait_of("alice", 0.0) == 0
