"""The operator's queue of keys, by a clock that the test moves."""

from __future__ import annotations

import pytest

from stoker_gateway.providers.kubernetes.operator.work_queue import WorkQueue


@pytest.fixture
def queue() -> WorkQueue[str]:
    return WorkQueue(first=1, longest=100, rate=10, burst=5)


def taken(queue: WorkQueue[str], now: float) -> list[str]:
    found = []
    while (key := queue.take(now)) is not None:
        found.append(key)
    return found


def fail(queue: WorkQueue[str], key: str, now: float) -> float:
    """Take it and let it fail; gives how long it waits then."""
    assert queue.take(now) == key
    queue.failed(key, now)
    due = queue.next_time()
    assert due is not None
    return due - now


def test_a_key_is_given_out_once_however_often_it_is_added_and_the_first_one_first(queue: WorkQueue[str]) -> None:
    for number, key in enumerate(("b", "a", "b", "c", "a")):
        queue.add(key, number)
    assert taken(queue, 10) == ["b", "a", "c"]
    assert queue.next_time() is None


def test_a_key_that_is_worked_on_waits_for_its_end(queue: WorkQueue[str]) -> None:
    queue.add("a", 0)
    assert taken(queue, 0) == ["a"]
    queue.add("a", 1)
    queue.add("a", 1)
    assert taken(queue, 2) == []
    queue.done("a", 3)
    assert taken(queue, 3) == ["a"]
    queue.done("a", 4)
    assert taken(queue, 5) == []


def test_what_fails_comes_later_each_time_and_never_later_than_the_longest_pause(queue: WorkQueue[str]) -> None:
    now, pauses = 1000.0, []
    queue.add("a", now)
    for _ in range(40):
        pauses.append(fail(queue, "a", now))
        now += pauses[-1]
    for number, pause in enumerate(pauses):
        expected = min(100, 2**number)
        assert 0.79 * expected <= pause <= expected + 0.01


def test_success_forgets_failures(queue: WorkQueue[str]) -> None:
    queue.add("a", 1000)
    for now in (1000, 1100, 1200):
        fail(queue, "a", now)
    assert taken(queue, 1300) == ["a"]
    queue.done("a", 1300)
    queue.add("a", 1301)
    assert fail(queue, "a", 1301) <= 1.01


def test_a_failed_key_keeps_its_pause_unless_what_is_to_be_done_has_changed(queue: WorkQueue[str]) -> None:
    queue.add("a", 1000)
    for now in (1000, 1100, 1200):
        fail(queue, "a", now)
    queue.add("a", 1201)
    assert taken(queue, 1202) == []
    queue.add_changed("a", 1202)
    assert taken(queue, 1202) == ["a"]
    queue.failed("a", 1202)
    due = queue.next_time()
    assert due is not None and due <= 1203.01
    assert taken(queue, 1300) == ["a"] and taken(queue, 9999) == []


def test_one_that_fails_holds_up_no_other(queue: WorkQueue[str]) -> None:
    queue.add("bad", 0)
    fail(queue, "bad", 0)
    queue.add("good", 0.1)
    assert taken(queue, 0.1) == ["good"]


def test_retries_of_many_come_at_a_bounded_rate(queue: WorkQueue[str]) -> None:
    keys = [f"f{number}" for number in range(105)]
    for key in keys:
        queue.add(key, 1000)
    for key in taken(queue, 1000):
        queue.failed(key, 1000)
    soon, later = len(taken(queue, 1001.01)), len(taken(queue, 1006.01))
    assert soon <= 5 + 10 + 1 and later <= 51
    assert soon + later + len(taken(queue, 1010.1)) == len(keys)
