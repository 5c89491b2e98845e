"""The settings of a function that are ours: what is accepted, in which shape it travels, and what is refused."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from stoker_sdk.addresses import AskedRoute
from stoker_sdk.deployment import function_spec
from stoker_sdk.errors import BadInput
from stoker_sdk.schedule import check_cron
from stoker_sdk.settings import Retries, Schedule
from stoker_sdk.stack import StackFunction, parse_stack


def one(body: str) -> StackFunction:
    return parse_stack(f"provider: {{name: openfaas}}\nfunctions:\n  greet:\n    {body}\n", {}).functions[0]


@pytest.mark.parametrize(
    ("body", "schedules"),
    [
        ('schedule: "*/5 * * * *"', [Schedule("*/5 * * * *")]),
        ("schedule: '@every 1h30m'", [Schedule("@every 1h30m")]),
        ("schedule: ['@daily', {cron: 0 9 * * mon-fri, timezone: UTC}]", None),
        ("schedule: {cron: '@hourly', timezone: Europe/Berlin, body: 1.0, path: /tick}", None),
        ("schedule: {cron: '@hourly', missed: run-once}", [Schedule("@hourly", missed="run-once")]),
    ],
)
def test_a_schedule_travels_as_a_list_whatever_form_it_was_written_in(
    body: str, schedules: list[Schedule] | None
) -> None:
    found = msgspec.json.decode(one(body).settings["schedule"], type=list[Schedule])
    assert schedules is None or found == schedules
    assert all(each.cron for each in found)
    if "tick" in body:
        assert found == [Schedule("@hourly", "Europe/Berlin", "1.0", "/tick")]


@pytest.mark.parametrize("text", ["* * * * *", "0,30 1-5 */2 jan-mar,12 sun", "5/15 0 31 12 7", "? ? * * ?", "@yearly"])
def test_cron_expressions_are_accepted(text: str) -> None:
    check_cron(text)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *"]
    + ["*/0 * * * *", "*-5 * * * *", "mon * * * *", "@sometimes", "@every", "@every 0", "@every soon", "a" * 300],
)
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        check_cron(text)


def test_retries_travel_in_one_shape() -> None:
    def retries(body: str) -> Retries:
        return msgspec.json.decode(one(body).settings["retries"], type=Retries)

    assert retries("retries: 3") == Retries(3)
    assert retries("retries: {max: 5, backoff: 1s, max_backoff: 1m, on: [503, 5xx, Timeout]}") == Retries(
        5, "1s", "1m", ["503", "5xx", "timeout"]
    )


def test_routes_travel_in_one_shape() -> None:
    found = msgspec.json.decode(one("routes: {host: A.example.org}").settings["routes"], type=list[AskedRoute])
    assert found == [AskedRoute("a.example.org")]


def test_settings_reach_the_gateway_as_annotations_and_scale_as_the_labels_of_the_contract() -> None:
    spec = function_spec(one("scale: {min: 2, max: 4}\n    connections: 60\n    retries: 1"))
    assert spec.annotations == {"stoker.dev/connections": "60", "stoker.dev/retries": '{"max":1}'}
    assert (spec.min_replicas, spec.max_replicas) == (2, 4)
    spec = function_spec(one("result: 24h\n    idempotent: true"))
    assert spec.annotations == {"stoker.dev/result": "24h", "stoker.dev/idempotent": "true"}
    assert spec.result_seconds == 86400 and spec.is_idempotent


def test_a_label_that_says_the_same_as_scale_is_fine_and_another_is_not() -> None:
    assert one("scale: {min: 2}\n    labels: {com.openfaas.scale.min: 2}").labels == {"com.openfaas.scale.min": "2"}
    with pytest.raises(BadInput, match="says '3', and `scale` says '2': write it in one place"):
        one("scale: {min: 2}\n    labels: {com.openfaas.scale.min: 3}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("connections: 0", "greet.connections: connections must be at least 1"),
        ("connections: 2.5", "connections must be a whole number, and is '2.5'"),
        ("concurrency: -1", "concurrency must be a whole number"),
        ("timeout: 99999999h", "timeout is longer than a year"),
        ("scale: 3", "functions.greet.scale: must be a mapping, and is a single value"),
        ("scale: {min: 5, max: 2}", "min is 5, more than max (2)"),
        ("scale: {min: 0}", "write `zero: true`"),
        ("scale: {zero: yes}", "4:13: functions.greet.scale.zero: must be true or false, and is 'yes'"),
        ("scale: {zero-duration: soon}", "duration 'soon' is not a duration"),
        ("scale: {target: 0}", "scale.target must be at least 1"),
        ("scale: {type: 'a b'}", "which is not allowed"),
        ("schedule: hourly", "schedule 'hourly' is not five fields"),
        ("schedule: {timezone: UTC}", "a schedule needs `cron`"),
        ("schedule: {cron: '@daily', timezone: ../../etc/passwd}", "time zone '../../etc/passwd' is not known"),
        ("schedule: {cron: '@daily', timezone: Mars/Olympus}", "time zone 'Mars/Olympus' is not known"),
        ("schedule: {cron: '@daily', path: ../x}", "path '../x' is not allowed"),
        (f"schedule: [{', '.join(['@daily'.join(chr(39) * 2)] * 101)}]", "has 101 entries, and 100 are the most"),
        ("schedule: {cron: '@daily', missed: all}", "schedule.missed: missed 'all' is none of skip, run-once"),
        ("schedule: '0 0 31 4 *'", "schedule '0 0 31 4 *' is never due"),
        ("schedule: {cron: TZ=Asia/Tokyo 0 9 * * *, timezone: UTC}", "the schedule has two time zones"),
        ("schedule: {cron: [a]}", "functions.greet.schedule.cron: must be a single value, and is a list"),
        ("routes: [{}]", "functions.greet.routes[0]: a route needs a host, a path, or both"),
        ("routes: [{host: 'http://x'}]", "host 'http://x' is not a host name"),
        ("routes: [{path: /a/../b}]", "path '/a/../b' is not allowed"),
        ("routes: [{path: '/a?b'}]", "path '/a?b' is not allowed"),
        ("routes: [{path: /a, methods: [BREW]}]", "4:35: functions.greet.routes[0].methods[0]: 'BREW' is not one of"),
        ("retries: many", "retries must be a whole number"),
        ("retries: {backoff: 1s}", "retries need `max`"),
        ("retries: {max: 101}", "retries must be at least 0 and at most 100"),
        ("retries: {max: 1, backoff: 2s, max_backoff: 1s}", "is longer than max_backoff"),
        ("result: soon", "functions.greet.result: result 'soon' is not a duration"),
        ("result: 200h", "result is '200h': write a duration from 1s to 168h"),
        ("idempotent: 1", "functions.greet.idempotent: idempotent must be true or false, and is '1'"),
        ("retries: {max: 1, on: [200]}", "'200' is not a status (503)"),
    ],
)
def test_a_bad_setting_is_named_with_its_place(body: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        one(body)
    assert str(caught.value).startswith("stack.yml:4:")


def test_an_unknown_key_in_a_setting_is_a_warning() -> None:
    text = "provider: {name: openfaas}\nfunctions: {a: {scale: {mx: 2}, retries: {max: 1, backof: 1s}}}"
    assert [warning.partition("; ")[2] for warning in parse_stack(text, {}).warnings] == [
        "the nearest known key is 'max'",
        "the nearest known key is 'backoff'",
    ]


def test_what_travels_is_json_that_other_programs_can_read() -> None:
    assert json.loads(one("routes: /a").settings["routes"]) == [{"path": "/a"}]
