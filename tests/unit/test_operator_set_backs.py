"""When the operator sets something back again, by a clock that the test moves."""

from __future__ import annotations

import pytest

from stoker_gateway.providers.kubernetes.operator.set_backs import SetBacks


@pytest.fixture
def set_backs() -> SetBacks[str]:
    return SetBacks(first=1, longest=5, quiet=10)


def test_the_first_is_at_once_and_each_further_one_later(set_backs: SetBacks[str]) -> None:
    now, waits = 0.0, []
    for _ in range(6):
        now += (wait := set_backs.wait("a", now))
        waits.append(wait)
        set_backs.add("a", now)
    assert waits == [0, 1, 2, 4, 5, 5]
    assert set_backs.wait("b", now) == 0


def test_who_comes_slower_than_the_pause_waits_longer_each_time_too(set_backs: SetBacks[str]) -> None:
    for now in (0, 1.5, 4):
        assert set_backs.wait("a", now) == 0
        set_backs.add("a", now)
    assert set_backs.wait("a", 5.5) == 2.5


def test_after_a_quiet_time_it_is_as_at_first(set_backs: SetBacks[str]) -> None:
    for now in (0, 0, 0):
        set_backs.add("a", now)
    assert set_backs.wait("a", 4) == 0 < set_backs.wait("a", 3)
    set_backs.add("a", 10)
    assert set_backs.wait("a", 10) == 1


def test_many_for_years_are_no_number_too_large(set_backs: SetBacks[str]) -> None:
    for _ in range(5000):
        set_backs.add("a", 0)
    assert set_backs.wait("a", 0) == 5
