"""From a schedule to its ticks: zones, the days when clocks are changed, what is late, and the call of a tick."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_gateway.queue.ticks import DAY, GRACE, MOST_AT_ONCE, MOST_COUNTED, Due, Plan, due, start, tick_call
from stoker_sdk.errors import BadInput
from stoker_sdk.names import FunctionKey
from stoker_sdk.schedule import Schedule, schedules_of
from stoker_sdk.settings import MAX_ENTRIES

KEY = FunctionKey("openfaas-fn", "greet")


def plan(cron: str, timezone: str = "", **settings: str) -> Plan:
    return Plan(KEY, Schedule(cron, timezone, **settings))


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def ticks(cron: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    """The next ticks, as the clock on a wall in the zone shows them, with their offset."""
    found = islice(plan(cron, zone).after(unix(after)), count)
    return [datetime.fromtimestamp(tick, zoneinfo.ZoneInfo(zone)).strftime("%d %H:%M %z") for tick in found]


def between(one: Plan, low: int, high: int) -> list[int]:
    return list(takewhile(lambda tick: tick <= high, one.after(low)))


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/20 * * * *", ["31 23:00 +0000", "31 23:20 +0000", "31 23:40 +0000"]),
        ("@hourly", ["31 23:00 +0000", "01 00:00 +0000", "01 01:00 +0000"]),
        ("@monthly", ["01 00:00 +0000", "01 00:00 +0000", "01 00:00 +0000"]),
        ("0 9 * * mon-fri", ["01 09:00 +0000", "02 09:00 +0000", "05 09:00 +0000"]),
        ("? 12 ? * ?", ["01 12:00 +0000", "01 12:01 +0000", "01 12:02 +0000"]),
        ("@every 90m", ["01 00:00 +0000", "01 01:30 +0000", "01 03:00 +0000"]),
    ],
)
def test_an_expression_gives_its_next_ticks(cron: str, expected: list[str]) -> None:
    assert ticks(cron, "2025-12-31T22:59:59Z", 3) == expected


def test_a_zone_may_stand_beside_the_expression_or_before_it() -> None:
    beside, before = plan("0 9 * * *", "Asia/Tokyo"), plan("CRON_TZ=Asia/Tokyo 0 9 * * *")
    assert beside.next(0) == before.next(0) == plan("TZ=Asia/Tokyo 0 9 * * *").next(0) == DAY


# In Berlin 02:00 became 03:00 on 29 March 2026, and 03:00 became 02:00 on 25 October.
SPRING, AUTUMN = "2026-03-29T00:00:00+01:00", "2026-10-25T00:00:00+02:00"


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", SPRING, ["29 03:00 +0200", "30 02:30 +0200"]),
        ("0,30 2,3 * * *", SPRING, ["29 03:00 +0200", "29 03:30 +0200", "30 02:00 +0200"]),
        ("0 * * * *", SPRING, ["29 01:00 +0100", "29 03:00 +0200", "29 04:00 +0200"]),
        ("30 2 * * *", AUTUMN, ["25 02:30 +0200", "26 02:30 +0100"]),
        ("30 * * * *", "2026-10-25T01:59:00+02:00", ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]),
        # Asked for in the second of the two hours, the first does not come again.
        ("30 2 * * *", "2026-10-25T02:10:00+01:00", ["26 02:30 +0100"]),
    ],
)
def test_a_day_on_which_clocks_are_changed_has_each_tick_once(cron: str, after: str, expected: list[str]) -> None:
    assert ticks(cron, after, len(expected), "Europe/Berlin") == expected


def test_a_clock_that_jumps_by_half_an_hour_loses_no_tick() -> None:
    """On 5 April 2026 02:00 became 01:30, on 4 October 02:00 becomes 02:30."""
    zone, autumn, spring = "Australia/Lord_Howe", "2026-04-04T23:00:00+11:00", "2026-10-04T00:30:00+10:30"
    assert ticks("15 */5 * * *", autumn, 3, zone) == ["05 00:15 +1100", "05 05:15 +1030", "05 10:15 +1030"]
    assert ticks("45 1 * * *", autumn, 2, zone) == ["05 01:45 +1100", "06 01:45 +1030"]
    assert ticks("*/30 1,2 * * *", autumn, 4, zone) == [
        "05 01:00 +1100",
        "05 01:30 +1100",
        "05 01:30 +1030",
        "05 02:00 +1030",
    ]
    assert ticks("0,45 2 * * *", spring, 3, zone) == ["04 02:30 +1100", "04 02:45 +1100", "05 02:00 +1100"]
    assert ticks("* * 1 1 *", "2026-10-04T01:59:00+10:30", 1, zone) == ["01 00:00 +1100"]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            "30 2 * * *",
            "0,30 2,3 * * *",
            "*/7 * * * *",
            "15 */5 * * *",
            "0 0 * * sun",
            "@every 7m",
            "@daily",
            "45 1 * * *",
        ]
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.sampled_from([unix(SPRING), unix(AUTUMN), unix("2026-03-08T05:00:00Z"), unix("2026-04-04T12:00:00Z")]),
    st.lists(st.integers(0, 2 * DAY), max_size=8),
)
def test_ticks_do_not_depend_on_when_they_are_asked_for(cron: str, zone: str, begin: int, cuts: list[int]) -> None:
    one = plan(cron, zone)
    whole = between(one, begin, begin + 2 * DAY)
    edges = sorted({begin, *(begin + cut for cut in cuts), begin + 2 * DAY})
    pieces = [between(one, low, high) for low, high in pairwise(edges)]
    assert [tick for piece in pieces for tick in piece] == whole
    assert whole == sorted(set(whole))


def test_what_is_late_is_run_and_what_is_too_late_is_missed() -> None:
    minutely, now = plan("* * * * *"), unix("2026-01-01T12:00:00Z")
    assert due(minutely, now - 60, now) == Due((now,))
    assert due(minutely, now, now) == due(minutely, now + 600, now) == Due()
    ten = due(minutely, now - 600, now)
    assert (len(ten.run), ten.missed) == (10, 0)
    hour = due(minutely, now - 3600, now)
    assert (hour.run[0], len(hour.run), hour.missed, hour.last_missed) == (now - GRACE, 16, 44, now - GRACE - 60)


def test_much_that_is_due_at_once_is_bounded() -> None:
    each_second, now = plan("@every 1s"), unix("2026-01-01T12:00:00Z")
    found = due(each_second, now - 300, now)
    assert (found.run[-1], len(found.run), found.missed) == (now, MOST_AT_ONCE, 300 - MOST_AT_ONCE)
    year = due(each_second, now - 365 * DAY, now)
    assert len(year.run) == MOST_AT_ONCE and MOST_COUNTED <= year.missed <= MOST_COUNTED + GRACE


def test_ticks_count_from_the_mark_but_not_from_before_the_function_was_made() -> None:
    assert start(None, 100, 500) == 500
    assert start(300, 100, 500) == 300
    assert start(300, 400, 500) == 400
    assert start(600, 100, 500) == 600  # the clock was set back
    assert start(500 + 2 * DAY, 100, 500) == 500  # a clock was wrong
    assert start(300, 500 + 2 * DAY, 500) == 300


def test_the_call_of_a_tick_says_what_it_is() -> None:
    one = plan("0 12 * * *", path="/report", body="all")
    call = tick_call(one, unix("2026-01-31T12:00:00Z"))
    assert (call.key, call.path, call.body) == (KEY, "/report", b"all")
    assert dict(call.headers) == {
        "X-Topic": "cron-function",
        "X-Connector": "stoker",
        "X-Stoker-Tick": "2026-01-31T12:00:00Z",
    }
    assert dict(tick_call(one, 0, missed=3).headers)["X-Stoker-Missed"] == "3"


def test_the_id_of_a_call_is_that_of_function_schedule_and_tick() -> None:
    ids = {
        plan("@daily").call_id(1),
        plan("@daily").call_id(1),
        plan("@daily").call_id(2),
        plan("@daily", "UTC").call_id(1),
        plan("@daily", body="x").call_id(1),
        Plan(FunctionKey("openfaas-fn", "other"), Schedule("@daily")).call_id(1),
    }
    assert len(ids) == 5 and all(len(id) == 37 for id in ids)


# What a function's annotations say


def test_annotations_of_ours_and_of_the_cron_connector_are_both_read_and_count_once() -> None:
    annotations = {
        "stoker.dev/schedule": '[{"cron": "@hourly", "body": "x"}, {"cron": "@daily"}]',
        "topic": "cron-function",
        "schedule": "*/5 * * * *; @daily ;CRON_TZ=Europe/Berlin 0 9 * * *;",
    }
    assert schedules_of(annotations) == (
        Schedule("@hourly", body="x"),
        Schedule("@daily"),
        Schedule("*/5 * * * *"),
        Schedule("CRON_TZ=Europe/Berlin 0 9 * * *"),
    )


@pytest.mark.parametrize("topic", ["", "payments", "cron-function,payments"])
def test_a_schedule_without_the_topic_of_the_cron_connector_is_somebody_elses(topic: str) -> None:
    assert schedules_of({"topic": topic, "schedule": "no cron at all"}) == ()


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"topic": "cron-function", "schedule": "* * * * *;bad"}, "schedule 'bad' is not five fields"),
        ({"topic": "cron-function", "schedule": "CRON_TZ=Mars/X 0 9 * * *"}, "time zone 'Mars/X' is not known"),
        ({"stoker.dev/schedule": "@daily"}, "annotation stoker.dev/schedule: JSON is malformed"),
        ({"stoker.dev/schedule": "[{}]"}, "missing required field `cron`"),
        ({"stoker.dev/schedule": '[{"cron": "0 0 30 2 *"}]'}, "schedule '0 0 30 2 *' is never due"),
        ({"stoker.dev/schedule": '[{"cron": "@every 0.5s"}]'}, "the duration is at least a second"),
        ({"stoker.dev/schedule": '[{"cron": "@daily", "path": "/a b"}]'}, "path '/a b' is not allowed"),
        ({"stoker.dev/schedule": '[{"cron": "@daily", "path": "/a\\r\\nX: y"}]'}, "is not allowed"),
        ({"stoker.dev/schedule": '[{"cron": "@daily", "missed": "all"}]'}, "missed 'all' is none of skip, run-once"),
        (
            {"stoker.dev/schedule": '[{"cron": "TZ=Asia/Tokyo 0 9 * * *", "timezone": "UTC"}]'},
            "the schedule has two time zones, Asia/Tokyo and UTC",
        ),
        ({"topic": "cron-function", "schedule": ";".join(["@daily"] * (MAX_ENTRIES + 1))}, "100 are the most"),
    ],
)
def test_a_bad_schedule_is_refused_with_the_reason(annotations: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        schedules_of(annotations)
    assert message in str(caught.value)


def test_time_of_a_process_has_no_part_in_it() -> None:
    now = int(datetime.now(UTC).timestamp())
    assert plan("@every 7m").next(now) == now - now % 420 + 420
