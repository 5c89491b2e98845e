"""What follows an attempt: done, again, wait or dead; and who says so."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.queue.policy import (
    DEFAULTS,
    LONGEST_RETRY_AFTER,
    LONGEST_WAIT,
    MOST_ATTEMPTS,
    Dead,
    Decision,
    Done,
    Outcome,
    Retry,
    RetrySettings,
    Wait,
    cap,
    decide,
    pause,
    retry_after_seconds,
    settings_of,
)
from stoker_sdk.stack import parse_stack

NOW = 1_700_000_000.0
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(st.integers(200, 599), st.just("error"))
SETTINGS = st.builds(
    lambda attempts, first, more, on, on_error, spread: RetrySettings(
        attempts, first, min(first + more, LONGEST_WAIT), frozenset(on), on_error, spread
    ),
    st.integers(1, MOST_ATTEMPTS),
    st.floats(0, 3600),
    st.floats(0, LONGEST_WAIT),
    st.sets(st.integers(400, 599)),
    st.booleans(),
    st.sampled_from([0.2, 1.0]),
)


def after(attempt: int, outcome: Outcome, settings: RetrySettings = DEFAULTS, error: str = "") -> Decision:
    return decide(attempt, outcome, None, settings, Random(1), stoker_error=error)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 418, 500, 501])
def test_an_answer_that_is_not_worth_repeating_is_the_outcome(status: int) -> None:
    assert after(1, status) == Done(status)


@pytest.mark.parametrize("outcome", ["error", 429, 502, 503, 504])
def test_by_default_there_are_three_attempts_and_then_none(outcome: Outcome) -> None:
    assert isinstance(after(1, outcome), Retry)
    assert isinstance(after(2, outcome), Retry)
    third = after(3, outcome)
    assert isinstance(third, Dead)
    assert "3 attempts" in third.reason
    assert ("no answer" if outcome == "error" else str(outcome)) in third.reason


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, "platform; too-many-calls"),
        (503, "platform; no-replica"),
        (503, "platform; queue-full"),
        (504, "function; timeout-waiting"),
        (503, "function; unhealthy"),
        (429, "function; max-inflight"),
    ],
)
def test_what_the_platform_answers_costs_no_attempt(status: int, error: str) -> None:
    assert isinstance(after(1, status, error=error), Wait)
    assert isinstance(after(99, status, error=error), Wait)


@pytest.mark.parametrize(
    ("status", "error"), [(502, "function; crashed"), (504, "function; timeout"), (503, "function; cannot-start")]
)
def test_what_the_function_did_costs_an_attempt(status: int, error: str) -> None:
    assert isinstance(after(1, status, error=error), Retry)
    assert isinstance(after(3, status, error=error), Dead)


def test_a_function_cannot_make_an_ordinary_answer_wait_for_ever() -> None:
    assert after(1, 200, error="platform; no-replica") == Done(200)
    assert after(1, 500, error="platform; no-replica") == Done(500)


def test_a_function_that_was_removed_is_the_end_of_its_calls() -> None:
    assert isinstance(after(1, 404, error="client; unknown-function"), Dead)
    assert after(1, 404) == Done(404)


def test_where_lost_connections_are_not_repeated_one_is_the_end() -> None:
    assert isinstance(after(1, "error", RetrySettings(on_error=False)), Dead)


@pytest.mark.parametrize(
    ("asked", "delay"), [(0.0, 1.0), (0.4, 1.0), (30.0, 30.0), (600.0, 600.0), (1e9, LONGEST_RETRY_AFTER)]
)
def test_a_retry_after_is_heeded_within_bounds(asked: float, delay: float) -> None:
    assert decide(1, 503, asked, DEFAULTS, Random(1)) == Retry(delay)
    assert decide(1, 429, asked, DEFAULTS, Random(1)) == Retry(delay)


def test_a_retry_after_of_another_status_says_nothing() -> None:
    again = decide(1, 502, 3000.0, DEFAULTS, Random(1))
    assert isinstance(again, Retry)
    assert again.delay <= 1.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("9" * 400, LONGEST_WAIT),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2000 00:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_a_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_seconds(text, NOW) == seconds


@given(st.text(max_size=60))
def test_any_text_may_stand_in_a_retry_after(text: str) -> None:
    seconds = retry_after_seconds(text, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(1, 200), OUTCOMES, st.none() | st.floats(0, 1e12), SETTINGS, st.integers(), st.integers(0, 10_000))
def test_no_call_is_tried_more_often_or_later_than_it_may(
    attempt: int, outcome: Outcome, asked: float | None, settings: RetrySettings, seed: int, waits: int
) -> None:
    decision = decide(attempt, outcome, asked, settings, Random(seed), waits=waits)
    if isinstance(decision, Retry):
        assert attempt < settings.attempts
        assert 0 <= decision.delay <= max(settings.most, LONGEST_RETRY_AFTER)
    else:
        assert isinstance(decision, (Done, Dead))
    waiting = decide(attempt, 503, asked, settings, Random(seed), stoker_error="platform; no-replica", waits=waits)
    assert isinstance(waiting, Wait)
    assert 0.25 <= waiting.delay <= 10


@given(SETTINGS, st.integers(1, 5000), st.integers())
def test_the_cap_of_the_pauses_grows_and_holds(settings: RetrySettings, attempt: int, seed: int) -> None:
    assert cap(attempt, settings) <= cap(attempt + 1, settings) <= settings.most
    least = cap(attempt, settings) * (1 - settings.spread)
    assert least - 1e-6 <= pause(attempt, settings, Random(seed)) <= cap(attempt, settings)


def test_named_times_come_within_a_fifth() -> None:
    settings = settings_of({"stoker.dev/retries": '{"max":5,"backoff":"1s","max_backoff":"10s","on":["503"]}'})
    for seed in range(50):
        delays = [decide(attempt, 503, None, settings, Random(seed)) for attempt in range(1, 6)]
        for decision, expected in zip(delays, [1, 2, 4, 8, 10], strict=True):
            assert isinstance(decision, Retry)
            assert expected * 0.8 <= decision.delay <= expected
        assert isinstance(decide(6, 503, None, settings, Random(seed)), Dead)


def test_default_pauses_are_spread_over_all_their_length() -> None:
    delays = [pause(1, DEFAULTS, Random(seed)) for seed in range(200)]
    assert min(delays) < 0.1
    assert max(delays) > 0.9


def ours(**retries: object) -> dict[str, str]:
    return {"stoker.dev/retries": json.dumps(retries)}


def contract(**values: str) -> dict[str, str]:
    return {f"com.openfaas.retry.{key}": value for key, value in values.items()}


ALL = frozenset({429, 502, 503, 504})


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, DEFAULTS),
        (ours(max=0), RetrySettings(attempts=1)),
        (ours(max=4), RetrySettings(attempts=5)),
        (ours(max=1, on=["503", "error"]), RetrySettings(2, on=frozenset({502, 503}))),
        (ours(max=1, on=["timeout"]), RetrySettings(2, on=frozenset({504}), on_error=False)),
        (ours(max=1, on=["5xx", "connect"]), RetrySettings(2, on=frozenset(range(500, 600)))),
        (ours(max=1, backoff="5s"), RetrySettings(2, 5.0, 120.0, spread=0.2)),
        (ours(max=1, backoff="10m"), RetrySettings(2, 600.0, 600.0, spread=0.2)),
        (ours(max=1, max_backoff="500ms"), RetrySettings(2, 0.5, 0.5, spread=0.2)),
        (contract(attempts="5"), RetrySettings(5)),
        (contract(attempts="0"), RetrySettings(1)),
        (contract(codes="408, 500"), RetrySettings(on=frozenset({408, 500}))),
        (contract(min_wait="2s", max_wait="1m"), RetrySettings(first=2.0, most=60.0, spread=0.2)),
        (contract(attempts="9", min_wait="2s") | ours(max=1), RetrySettings(2, 2.0, spread=0.2)),
        (contract(codes="500") | ours(max=1, on=["503"]), RetrySettings(2, on=frozenset({503}), on_error=False)),
    ],
)
def test_the_functions_own_retries_win_over_the_contracts(annotations: dict[str, str], expected: RetrySettings) -> None:
    assert settings_of(annotations) == expected


@pytest.mark.parametrize(
    "annotations",
    [
        contract(attempts="many"),
        contract(attempts="-1"),
        contract(attempts="1000000"),
        contract(codes="teapot"),
        contract(codes="503,"),
        contract(min_wait="soon"),
        contract(min_wait="1m", max_wait="1s"),
        contract(max_wait="9" * 400),
        {"stoker.dev/retries": "3 times"},
        {"stoker.dev/retries": "[" * 100_000},
        {"stoker.dev/retries": '{"max": "3"}'},
        ours(max=-1),
        ours(max=10**9),
        ours(backoff="1s"),
    ],
)
def test_what_cannot_be_read_counts_as_not_there(annotations: dict[str, str]) -> None:
    assert settings_of(annotations) == DEFAULTS


@given(st.dictionaries(st.sampled_from(["attempts", "codes", "min_wait", "max_wait"]), st.text(max_size=12)))
def test_settings_are_usable_whatever_the_annotations_say(values: dict[str, str]) -> None:
    settings = settings_of(contract(**values))
    assert 1 <= settings.attempts <= MOST_ATTEMPTS
    assert 0 <= settings.first <= settings.most <= LONGEST_WAIT


def test_a_stack_may_name_lost_connections() -> None:
    text = "provider: {name: openfaas}\nfunctions:\n  greet:\n    retries: {max: 2, on: [503, error]}\n"
    retries = parse_stack(text, {}).functions[0].settings["retries"]
    assert settings_of({"stoker.dev/retries": retries}) == RetrySettings(on=frozenset({502, 503}))
