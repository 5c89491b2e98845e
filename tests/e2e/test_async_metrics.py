"""What `/metrics` tells of async calls, with real processes, and through a worker's end."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_platform import Platform, wait_for
from test_async_callbacks import caller
from test_async_calls import FAILS, SLEEP, accepted, ended

QUEUE = {"queue_name": "faas-request"}


class Scrape:
    """One look at the page."""

    def __init__(self, platform: Platform) -> None:
        with urllib.request.urlopen(platform.metrics_url, timeout=10) as answer:
            text = answer.read().decode()
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def of(self, name: str, function: str, **labels: str) -> float:
        labels["function_name"] = f"{function}.openfaas-fn"
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def calling(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(flags=("--allow-private-callbacks", "--worker-lost-after", "1s"))


def test_calls_attempts_ends_and_callbacks_are_counted_by_function(calling: Platform) -> None:
    calling.deploy("works", SLEEP)
    retries = {"stoker.dev/retries": '{"max":1,"backoff":"50ms","max_backoff":"100ms"}'}
    calling.deploy("fails", FAILS, annotations=retries)
    with caller() as (url, got):
        for _ in range(3):
            ended(calling, accepted(calling.call_later("works", headers={"X-Callback-Url": url})))
        wait_for(lambda: len(got) == 3, "the callbacks")
        refused = calling.call_later("works", headers={"X-Callback-Url": "ftp://example.org/"})
        assert refused.status == 400
    dead = accepted(calling.call_later("fails"))
    ended(calling, dead)
    scrape = wait_for(lambda: _with_callbacks(calling, 3), "the last callback's count")
    assert scrape.of("queue_worker_messages_submitted_total", "works", **QUEUE) == 3
    assert scrape.of("queue_worker_messages_processed_total", "works", **QUEUE) == 3
    assert scrape.of("queue_worker_messages_processed_total", "fails", **QUEUE) == 1
    assert scrape.of("stoker_calls_ended_total", "works", state="done") == 3
    assert scrape.of("stoker_calls_ended_total", "fails", state="dead") == 1
    assert scrape.of("stoker_call_attempt_seconds_count", "works", code="200") == 3
    assert scrape.of("stoker_call_attempt_seconds_count", "fails", code="503") == 2
    assert scrape.of("stoker_calls_redelivered_total", "fails") == 1
    assert scrape.of("stoker_call_enqueue_seconds_count", "works", code="202") == 3
    assert scrape.of("stoker_call_enqueue_seconds_count", "works", code="400") == 1
    assert scrape.of("queue_worker_pending_messages", "works", **QUEUE) == 0
    assert f"call {dead} of fails.openfaas-fn is dead: status 503 at the last of 2 attempts" in calling.log


def _with_callbacks(platform: Platform, number: int) -> Scrape | None:
    scrape = Scrape(platform)
    return scrape if scrape.of("stoker_callbacks_total", "works", state="delivered") == number else None


def test_what_waits_shows_its_depth_and_age_and_counts_outlive_a_worker(calling: Platform) -> None:
    calling.deploy("slow", SLEEP, annotations={"stoker.dev/concurrency": "3"})
    ended(calling, accepted(calling.call_later("slow", b"0")))
    ids = [accepted(calling.call_later("slow", b"60")) for _ in range(4)]
    wait_for(lambda: Scrape(calling).of("queue_worker_pending_messages", "slow", **QUEUE) == 4, "four to wait")
    scrape = wait_for(lambda: _older_than(calling, 1.0), "an age of over a second")
    assert scrape.of("queue_worker_function_invocation_inflight", "slow", **QUEUE) == 3
    assert scrape.of("queue_worker_messages_submitted_total", "slow", **QUEUE) == 5
    calling.kill("worker 0")
    wait_for(lambda: Scrape(calling).of("stoker_calls_redelivered_total", "slow") >= 1, "the redelivery")
    assert Scrape(calling).of("stoker_calls_ended_total", "slow", state="done") == 1
    for id in ids:
        calling.client.cancel_call(id)
    assert Scrape(calling).of("stoker_calls_ended_total", "slow", state="cancelled") == 4
    wait_for(lambda: Scrape(calling).of("queue_worker_pending_messages", "slow", **QUEUE) == 0, "nothing to wait")


def _older_than(platform: Platform, seconds: float) -> Scrape | None:
    scrape = Scrape(platform)
    return scrape if scrape.of("stoker_calls_oldest_seconds", "slow") > seconds else None


def test_while_the_broker_is_away_the_page_answers_without_depths(own_platform: Platform) -> None:
    own_platform.deploy("works", SLEEP)
    ended(own_platform, accepted(own_platform.call_later("works")))
    name = ("gateway_nats_reconnect_total", ())
    assert Scrape(own_platform).samples[name] == 0
    own_platform.kill("broker")
    scrape = Scrape(own_platform)
    assert scrape.of("stoker_calls_ended_total", "works", state="done") == 1
    wait_for(lambda: Scrape(own_platform).samples[name] >= 1, "the proxy's connection to come back")
    wait_for(lambda: Scrape(own_platform).samples["queue_worker_nats_reconnect_total", ()] >= 1, "the worker's")
