"""Which runs count as lost, and what follows them."""

from __future__ import annotations

from stoker_gateway.queue import losses
from stoker_gateway.queue.losses import ALONE_SECONDS, MOST_LOST, Quarantine
from stoker_gateway.queue.policy import Dead, Retry
from stoker_sdk.messages import CallAttempt

FAILED = CallAttempt(1, "2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.000Z", 503)
LATER = "2026-01-31T12:00:05.000Z"


def test_only_a_delivery_without_a_trace_makes_the_next_run_be_noted() -> None:
    assert not losses.is_noted(1, [])
    assert losses.is_noted(2, [])
    assert not losses.is_noted(2, [FAILED])
    assert losses.is_noted(3, [FAILED])
    assert not losses.is_noted(1, [FAILED])  # the broker has forgotten deliveries


def test_what_has_begun_and_not_ended_is_lost_for_who_finds_it() -> None:
    found = losses.closed(losses.begun([FAILED], LATER))
    assert found[0] == FAILED and losses.count(found) == 1
    assert (found[1].number, found[1].started_at, found[1].ended_at, found[1].lost) == (2, LATER, "", True)
    assert losses.closed(found) == found


def test_after_so_many_losses_a_call_is_dead_and_before_it_is_tried_again() -> None:
    lost = CallAttempt(1, LATER, LATER, lost=True)
    assert isinstance(losses.after([lost] * (MOST_LOST - 1)), Retry)
    assert isinstance(losses.after([FAILED] * 10 + [lost]), Retry)
    end = losses.after([lost] * MOST_LOST)
    assert isinstance(end, Dead) and end.reason.startswith(f"{MOST_LOST} times")


def test_suspects_begin_one_at_a_time_and_none_for_ever() -> None:
    quarantine = Quarantine()
    assert quarantine.enter("a", 0.0) and not quarantine.enter("b", 1.0)
    assert quarantine.enter("a", 2.0)
    quarantine.leave("b")
    assert not quarantine.enter("b", 3.0)
    assert quarantine.enter("b", 3.0 + ALONE_SECONDS)
    quarantine.leave("a")
    assert not quarantine.enter("c", 4.0 + ALONE_SECONDS)
    quarantine.leave("b")
    assert quarantine.enter("c", 4.0 + ALONE_SECONDS)
