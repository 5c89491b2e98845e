"""The next step of one function, as a table of situations."""

from __future__ import annotations

import pytest

from stoker_gateway.providers.local.artefacts import Artefact
from stoker_gateway.providers.local.plan import Replica, State, Version, next_delay, plan
from stoker_sdk.function import FunctionSpec


def version(revision: int) -> Version:
    return Version(revision, FunctionSpec("greet"), "", Artefact("greet"))


OLD, NEW = version(1), version(2)


def replicas(*states: tuple[Version, State]) -> list[Replica]:
    return [
        Replica(f"r{number}", of, "", since=float(number), started_at="", state=state)
        for number, (of, state) in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("wanted", "there", "start", "drained", "settled"),
    [
        (1, [], 1, [], False),
        (3, [(NEW, "ready")], 2, [], False),
        (1, [(NEW, "starting")], 0, [], False),
        (1, [(NEW, "ready")], 0, [], True),
        (2, [(OLD, "ready"), (OLD, "ready"), (NEW, "ready"), (NEW, "starting")], 0, [], False),
        (2, [(OLD, "ready"), (OLD, "ready"), (NEW, "ready"), (NEW, "ready")], 0, ["r0", "r1"], False),
        (1, [(NEW, "ready"), (OLD, "draining")], 0, [], True),
        (0, [(OLD, "ready"), (NEW, "starting")], 0, ["r1", "r0"], False),
        (0, [], 0, [], True),
    ],
    ids=[
        "nothing there: start",
        "too few: start the rest",
        "one on its way: wait",
        "as wanted: settled",
        "an update that is half ready takes nothing away",
        "an update that is ready drains the old ones",
        "what drains already is left alone",
        "scaled to zero: all drain",
        "nothing wanted, nothing there",
    ],
)
def test_the_next_step(
    wanted: int, there: list[tuple[Version, State]], start: int, drained: list[str], settled: bool
) -> None:
    step = plan(NEW, wanted, replicas(*there))
    assert (step.start, [replica.id for replica in step.drain], step.settled) == (start, drained, settled)


def test_surplus_replicas_leave_in_the_order_of_their_worth() -> None:
    step = plan(NEW, 1, replicas((NEW, "ready"), (NEW, "starting"), (NEW, "ready")))
    assert [replica.id for replica in step.drain] == ["r1", "r2"]


def test_the_first_crash_is_mended_at_once_and_the_pause_then_grows_to_half_a_minute() -> None:
    delays = [next_delay(failures) for failures in range(1, 12)]
    assert delays[0] == 0.0
    assert delays[1:4] == [0.25, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
