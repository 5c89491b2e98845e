"""A budget of connections: the share of a replica, how many replicas it allows, and that no event ever exceeds it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_gateway.providers.local.artefacts import Artefact
from stoker_gateway.providers.local.plan import Replica, State, Version, affordable, plan
from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec


def spec(connections: object = "", most: int = 20, least: int = 1) -> FunctionSpec:
    annotations = {"stoker.dev/connections": str(connections)} if connections != "" else None
    labels = {"com.openfaas.scale.max": str(most), "com.openfaas.scale.min": str(least)}
    return FunctionSpec("greet", "image", annotations=annotations, labels=labels)


def version(connections: object = "", most: int = 20) -> Version:
    return Version(1, spec(connections, most), "", Artefact("greet"))


def replicas(*states: tuple[Version, State]) -> list[Replica]:
    return [
        Replica(f"r{n}", of, "", since=float(n), started_at="", state=state, share=of.spec.connection_share)
        for n, (of, state) in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("connections", "most", "share", "slots"),
    [
        ("", 20, 0, 0),  # no budget, no limit
        (60, 20, 2, 30),
        (60, 50, 1, 60),
        (20, 10, 1, 20),
        (22, 10, 2, 11),  # ten, and the one more that an update needs
        (10, 10, 1, 10),  # no room for one more: an update takes one away first
        (5, 20, 1, 5),
        (1, 1, 1, 1),
        (100, 1, 50, 2),
    ],
)
def test_the_share_leaves_one_place_for_an_update(connections: object, most: int, share: int, slots: int) -> None:
    asked = spec(connections, most)
    asked.check()
    assert (asked.connection_share, asked.most_replicas) == (share, slots)


@given(st.integers(1, 5000), st.integers(1, 500))
def test_all_shares_together_never_exceed_the_budget_and_none_is_zero(connections: int, most: int) -> None:
    asked = spec(connections, most)
    assert asked.connection_share >= 1
    assert asked.connection_share * asked.most_replicas <= connections
    assert affordable(asked, most) >= min(most, connections)


@pytest.mark.parametrize(
    ("connections", "least", "message"),
    [
        ("two", 1, "connections is 'two': write a whole number"),
        ("-1", 1, "connections is '-1'"),
        ("9" * 30, 1, "connections is '9"),
        ("0", 1, "connections is 0, with which no replica could start"),
        ("3", 5, "connections is 3, and com.openfaas.scale.min asks for 5 replicas: .* 2 too few"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_with_the_arithmetic(connections: str, least: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        spec(connections, least=least).check()


TEN = version(10, 10)
NEXT = version(10, 10)
ONE, ONE_MORE = version(1, 1), version(1, 1)
HALF = version(10, 4)  # share 2
READY: State = "ready"


@pytest.mark.parametrize(
    ("goal", "wanted", "there", "start", "drained"),
    [
        (TEN, 12, [], 10, []),
        (TEN, 10, [(TEN, "ready")] * 8 + [(TEN, "draining")], 1, []),
        (TEN, 10, [(TEN, "ready")] * 9 + [(TEN, "draining")], 0, []),
        (TEN, 10, [(TEN, "unhealthy")] * 10, 0, []),
        (NEXT, 10, [(TEN, "ready")] * 10, 0, ["r9"]),
        (NEXT, 10, [(TEN, "ready")] * 9 + [(TEN, "draining")], 0, []),
        (NEXT, 10, [(TEN, "ready")] * 9, 1, []),
        (NEXT, 10, [(TEN, "ready")] * 9 + [(NEXT, "starting")], 0, []),
        (NEXT, 10, [(TEN, "ready")] * 9 + [(NEXT, "unhealthy")], 0, []),
        (NEXT, 10, [(TEN, "ready")] * 9 + [(NEXT, "ready")], 0, ["r8"]),
        (NEXT, 10, [(TEN, "unhealthy")] + [(TEN, "ready")] * 9, 0, ["r0"]),
        (NEXT, 3, [(TEN, "ready")] * 3, 3, []),
        (ONE_MORE, 1, [(ONE, "ready")], 0, ["r0"]),
        (HALF, 4, [(TEN, "ready")] * 10, 0, ["r9", "r8"]),
        (HALF, 4, [(TEN, "ready")] * 7, 1, []),
        (TEN, 10, [(version(), "ready")] * 3, 10, []),
        (version(), 3, [(TEN, "ready")] * 10, 3, []),
    ],
    ids=[
        "more than the budget allows: as many as it allows",
        "what drains holds its share",
        "no place: wait for what drains",
        "the unhealthy count",
        "an update without room takes one away",
        "and waits for it to go",
        "then starts one in its place",
        "and takes no other before that is ready",
        "nor before it is healthy",
        "then the next",
        "the least useful first",
        "with room all start beside the old",
        "a single place",
        "a larger share needs two old ones to go",
        "shares are counted, not replicas",
        "what had no share makes no difference",
        "the budget was taken away",
    ],
)
def test_the_next_step_within_a_budget(
    goal: Version, wanted: int, there: list[tuple[Version, State]], start: int, drained: list[str]
) -> None:
    step = plan(goal, wanted, replicas(*there))
    assert (step.start, [replica.id for replica in step.drain]) == (start, drained)
    assert not step.settled


def test_a_removed_function_of_the_same_name_holds_its_share_until_it_is_gone() -> None:
    assert plan(TEN, 10, [], held=4).start == 6
    waiting = plan(TEN, 10, [], held=10)
    assert (waiting.start, list(waiting.drain), waiting.settled) == (0, [], False)


class World:
    """One function's replicas, and whatever may happen to them."""

    def __init__(self) -> None:
        self.version = version(6, 5)
        self.wanted = 1
        self.replicas: list[Replica] = []

    def step(self) -> bool:
        step = plan(self.version, self.wanted, self.replicas)
        before = sum(replica.share for replica in self.replicas)
        for _ in range(step.start):
            self.replicas.append(replicas((self.version, "starting"))[0])
        asked = self.version.spec
        if step.start and asked.connections:
            assert before + step.start * asked.connection_share <= asked.connections
            assert all(replica.share for replica in self.replicas if replica.version is self.version)
        for replica in step.drain:
            assert replica.state != "draining"
            replica.state = "draining"
        return step.settled

    def happen(self, what: str, value: int) -> None:
        chosen = self.replicas[value % len(self.replicas)] if self.replicas else None
        if what == "scale":
            self.wanted = value % 12
        elif what == "restart":
            self.version = Version(1, self.version.spec, "", Artefact("greet"))
        elif what == "deploy":
            self.version = version(value % 24 or "", 1 + value % 7)
        elif chosen and what == "end":
            self.replicas.remove(chosen)
        elif chosen and chosen.state != "draining":
            chosen.state = "unhealthy" if what == "sick" else "ready"

    def settle(self) -> None:
        """All that starts gets ready and all that drains ends: how long that takes, in steps."""
        for _ in range(100):
            if self.step() and not any(replica.state == "draining" for replica in self.replicas):
                return
            self.replicas = [replica for replica in self.replicas if replica.state != "draining"]
            for replica in self.replicas:
                replica.state = "ready"
        raise AssertionError(f"it never settles: {self.wanted} of {self.version}, {self.replicas}")


Events: Any = st.lists(
    st.tuples(st.sampled_from(["scale", "restart", "deploy", "end", "sick", "ready"]), st.integers(0, 1000)),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(Events)
def test_no_sequence_of_events_exceeds_the_budget_and_each_ends_as_wanted(events: list[tuple[str, int]]) -> None:
    world = World()
    for what, value in events:
        world.happen(what, value)
        world.step()
    world.settle()
    assert [replica.version for replica in world.replicas] == [world.version] * affordable(
        world.version.spec, world.wanted
    )
