"""Stage 5: the function's own tests, run where they can harm nobody.

As root they have a user id that no other build uses at the same time; they see a scratch copy of the
function, its packages and its language's test tools, and neither the platform's packages nor its environment.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from stoker_builder.child import Account, Limits, Program, TimedOut, end_all_of
from stoker_builder.config import StepSettings
from stoker_builder.environment import Environment
from stoker_builder.errors import FailedTests
from stoker_builder.languages.base import TestStep
from stoker_builder.network import own_network
from stoker_builder.plan import Plan
from stoker_builder.staging import lock
from stoker_builder.tree import copy_tree, hand_over
from stoker_builder.workshop import Workshop

_KEPT_LINES = 20
_PLACES = 64


def run_tests(plan: Plan, settings: StepSettings, function: Path, environment: Environment, workshop: Workshop) -> None:
    """Run the test step on a copy of the assembled `function`. Raises `FailedTests` with the last lines."""
    step = _step(plan, settings, function)
    if not step.command:
        workshop.log(f"tests: {step.reason}")
        return
    scratch = _scratch(function, workshop)
    variables = plan.language.prepare_tests(plan, scratch, environment, workshop)
    with _test_user(workshop) as user:
        if user is not None:
            hand_over(scratch, user)
        groups = () if environment.group is None else (environment.group,)
        program = Program(
            command=step.command,
            folder=scratch / "function" / plan.template.handler_folder,
            environment=_basic_variables(scratch) | variables,
            limits=Limits(settings.timeout, settings.memory, workshop.most_processes, workshop.config.bounds.disk),
            account=None if user is None else Account(user, groups),
            temporary=scratch / "home",
        )
        with own_network() if plan.request.offline else nullcontext() as network:
            if plan.request.offline and network is None:
                workshop.log("tests: with the machine's network, because the platform may not make another")
            _run(plan, replace(program, network=network), workshop, own_command=bool(settings.command))


def _scratch(function: Path, workshop: Workshop) -> Path:
    scratch = workshop.staging / "tests"
    scratch.mkdir(mode=0o700)
    copy_tree(function, scratch / "function")
    (scratch / "home").mkdir()
    return scratch


def _step(plan: Plan, settings: StepSettings, function: Path) -> TestStep:
    if not settings.enabled:
        return TestStep(reason="switched off by TEST_ENABLED")
    if settings.command:
        return TestStep(("/bin/sh", "-c", settings.command))
    return plan.language.test_step(plan, function)


def _run(plan: Plan, program: Program, workshop: Workshop, *, own_command: bool) -> None:
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def on_line(line: str) -> None:
        last.append(line)
        workshop.log(line)

    workshop.log(f"tests: {shlex.join(program.command)}")
    try:
        code = workshop.children.run(program, on_line)
    except TimedOut as error:
        raise FailedTests(_message(plan, f"{error} and were stopped; TEST_TIMEOUT=20m gives them more", last)) from None
    except OSError as error:
        raise FailedTests(f"{plan.request.name}: the test command cannot be started: {error}") from None
    if plan.language.none_found(code) and not own_command:
        workshop.log("tests: none were found in the test files")
    elif code:
        reason = f"were killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise FailedTests(_message(plan, f"{reason}, so nothing is published", last))


def _message(plan: Plan, reason: str, last: deque[str]) -> str:
    return "\n".join([f"{plan.request.name}: its tests {reason}. Their last lines:", *last])


def _basic_variables(scratch: Path) -> dict[str, str]:
    return {
        "PATH": f"{scratch / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "home"),
        "LANG": "C.UTF-8",
    }


@contextmanager
def _test_user(workshop: Workshop) -> Iterator[int | None]:
    """A user id that no other build's tests have now, cleared of what a dead build left running; None if not
    root.
    """
    if workshop.config.ids is None:
        yield None
        return
    with ExitStack() as held:
        place = _free_place(workshop.config.data.builds / "locks", held)
        user = workshop.config.ids.id_for(f"tests:{place}")
        end_all_of(user)
        try:
            yield user
        finally:
            end_all_of(user)


def _free_place(locks: Path, held: ExitStack) -> int:
    for place in range(_PLACES):
        try:
            held.enter_context(lock(locks / f"tests-{place}", _give_up))
            return place
        except _Occupied:
            continue
    raise FailedTests(f"{_PLACES} builds run their tests at the same time: try again later")


class _Occupied(Exception):
    """Another build has this place."""


def _give_up() -> None:
    """Given to `lock` so that it does not wait."""
    raise _Occupied
