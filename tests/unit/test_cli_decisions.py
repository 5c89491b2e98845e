"""What the commands decide before they act: flags, outcomes of rollouts, tables, times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stoker_cli.builds import needs_build
from stoker_cli.command import plain_flags
from stoker_cli.deploy_options import deploy_mode, pairs
from stoker_cli.list_functions import SORTS, in_order
from stoker_cli.logs import since_when
from stoker_cli.output import table_lines
from stoker_sdk.errors import BadInput, BadUsage
from stoker_sdk.function import Condition, FunctionStatus, RolledBack
from stoker_sdk.rollout import Mode, Outcome, outcome
from stoker_sdk.stack import StackFunction

FLAGS = {"--tail": "--no-tail", "--replace": "", "-v": ""}


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["--tail=true", "x"], ["--tail", "x"]),
        (["--tail=false"], ["--no-tail"]),
        (["--replace=0", "--replace=T"], ["--replace"]),
        (["--other=false", "--tail", "-v=false"], ["--other=false", "--tail"]),
        (["--tail=maybe"], ["--tail=maybe"]),
        (["--", "--tail=false"], ["--", "--tail=false"]),
    ],
)
def test_boolean_flags_take_values_as_in_faas_cli(given: list[str], plain: list[str]) -> None:
    assert plain_flags(given, FLAGS) == plain


def status(condition: Condition | None, replicas: int = 1, available: int = 0) -> FunctionStatus:
    return FunctionStatus(
        "greet", "i:1", "openfaas-fn", replicas=replicas, available_replicas=available, stoker=condition
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (status(Condition("ready", 1)), Outcome(is_over=False)),
        (status(Condition("deploying", 2)), Outcome(is_over=False)),
        (status(Condition("ready", 2)), Outcome(is_over=True)),
        (status(Condition("ready", 3)), Outcome(is_over=True)),
        (status(Condition("zero", 2)), Outcome(is_over=True)),
        (
            status(Condition("failed", 2, message="exited with 1", output=["oops"])),
            Outcome(is_over=True, failure="exited with 1", output=("oops",)),
        ),
        (status(Condition("failed", 2)), Outcome(is_over=True, failure="it did not get ready")),
        (status(Condition("failed", 1)), Outcome(is_over=False)),
        (status(Condition("failed", 2, message="no node", rollback_to=1)), Outcome(is_over=False, failure="no node")),
        (
            status(Condition("ready", 3, rolled_back=RolledBack(2, 1, "no node", output=["oops"]))),
            Outcome(True, "no node\nrolled back to revision 1, which serves", ("oops",)),
        ),
        (status(Condition("ready", 3, rolled_back=RolledBack(1, 1, "no node"))), Outcome(is_over=True)),
        (status(None), Outcome(is_over=False)),
        (status(None, available=1), Outcome(is_over=True)),
        (status(None, replicas=0), Outcome(is_over=True)),
    ],
)
def test_a_rollout_is_over_when_its_revision_or_a_later_one_is(found: FunctionStatus, expected: Outcome) -> None:
    assert outcome(found, revision=2) == expected


def test_deploy_builds_what_has_source_and_no_exact_image() -> None:
    source = StackFunction("greet", lang="python3", handler="./greet", image="greet:latest")
    exact = StackFunction("greet", lang="python3", handler="./greet", image="x@sha256:" + "0" * 64)
    assert needs_build(source, "") and not needs_build(source, "other:1") and not needs_build(exact, "")
    assert not needs_build(StackFunction("greet", lang="python3", handler="./greet", skip_build=True), "")
    assert not needs_build(StackFunction("greet", image="greet"), "")


def test_an_existing_function_is_updated_unless_flags_say_otherwise() -> None:
    assert deploy_mode(update=None, replace=False) is deploy_mode(update=True, replace=False) is Mode.UPDATE
    assert deploy_mode(update=False, replace=False) is Mode.CREATE
    assert deploy_mode(update=None, replace=True) is deploy_mode(update=False, replace=True) is Mode.REPLACE
    with pytest.raises(BadUsage, match="exclude each other"):
        deploy_mode(update=True, replace=True)


def test_functions_are_listed_by_name_by_calls_or_the_newest_first() -> None:
    functions = [
        FunctionStatus("b", "i", "n", invocation_count=2, created_at="2026-01-31T12:00:00Z"),
        FunctionStatus("a", "i", "n", invocation_count=2, created_at="2026-01-31T12:00:01Z"),
        FunctionStatus("c", "i", "n", invocation_count=3, created_at="2026-01-31T12:00:00Z"),
    ]
    orders = {sort: "".join(each.name for each in in_order(functions, sort)) for sort in SORTS}
    assert orders == {"name": "abc", "invocations": "cab", "creation": "abc"}


def test_pairs_keep_everything_behind_the_first_equals_sign() -> None:
    assert pairs(("A=b=c", "D="), "--env") == {"A": "b=c", "D": ""}
    for text in ("A", "=b"):
        with pytest.raises(BadUsage, match=r"--env .* is not NAME=VALUE"):
            pairs((text,), "--env")


def test_since_is_counted_back_from_now() -> None:
    now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    assert since_when("", "", now) == ""
    assert since_when("1h30m", "", now) == "2026-01-31T10:30:00Z"
    assert since_when("", "2026-01-31T12:00:00+02:00", now) == "2026-01-31T10:00:00Z"
    with pytest.raises(BadUsage):
        since_when("1h", "2026-01-31T12:00:00Z", now)
    with pytest.raises(BadInput, match="--since"):
        since_when("soon", "", now)
    with pytest.raises(BadInput, match="--since"):
        since_when("99999999999h", "", now)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table_lines(("A", "B"), [("long", "x"), ("", "y")]) == ["A     B", "long  x", "      y"]
    assert table_lines(("A", "B"), []) == ["A  B"]
    assert table_lines(("A",), [("\x1b[2Jx\n",)]) == ["A", " [2Jx"]
