"""Stage 5: the function's own tests, run where they can harm nobody.

As root they have a user id that no other build uses at the same time; they see a scratch copy of the
function, its packages and its language's test tools, and neither the platform's packages nor its environment.
"""

from __future__ import annotations

import shlex
import subprocess
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from stoker_builder.child import Account, Limits, Program, TimedOut
from stoker_builder.config import StepSettings
from stoker_builder.environment import Environment
from stoker_builder.errors import FailedTests
from stoker_builder.languages.base import TestStep
from stoker_builder.places import Place, place_for_tests
from stoker_builder.plan import Plan
from stoker_builder.tree import copy_tree
from stoker_builder.warm_tests import WarmTests
from stoker_builder.workshop import Workshop

_KEPT_LINES = 20


def run_tests(
    plan: Plan, settings: StepSettings, function: Path, environment: Environment, workshop: Workshop
) -> TestStep:
    """Run the test step on a copy of the assembled `function`, and say what it was. Raises `FailedTests` with the last
    lines.
    """
    step = _step(plan, settings, function)
    if not step.command:
        workshop.log(f"tests: {step.reason}")
        return step
    warm = workshop.warm_tests
    if warm is not None and not warm.is_ready(workshop.children):
        warm = None
    config = workshop.config
    with ExitStack() as held:
        place = warm.place if warm is not None else _place(plan, workshop, held)
        (place.scratch / "function").mkdir(mode=0o700)
        copy_tree(function, place.scratch / "function")
        variables = plan.language.prepare_tests(plan, place.scratch, environment, workshop)
        place.give()
        groups = () if environment.group is None else (environment.group,)
        program = Program(
            command=step.command,
            folder=place.scratch / "function" / plan.template.handler_folder,
            environment=place.variables | variables,
            limits=Limits(settings.timeout, settings.memory, config.most_processes, config.bounds.disk),
            account=None if place.user is None else Account(place.user, groups),
            temporary=place.home,
            network=place.network,
        )
        _run(plan, program, workshop, warm, own_command=bool(settings.command))
    return step


def _place(plan: Plan, workshop: Workshop, held: ExitStack) -> Place:
    offline = plan.request.offline
    place = held.enter_context(place_for_tests(workshop.config, workshop.staging / "tests", offline=offline))
    if offline and place.network is None:
        workshop.log("tests: with the machine's network, because the platform may not make another")
    return place


def _step(plan: Plan, settings: StepSettings, function: Path) -> TestStep:
    if not settings.enabled:
        return TestStep(reason="switched off by TEST_ENABLED")
    if settings.command:
        return TestStep(("/bin/sh", "-c", settings.command))
    return plan.language.test_step(plan, function)


def _run(plan: Plan, program: Program, workshop: Workshop, warm: WarmTests | None, *, own_command: bool) -> None:
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def on_line(line: str) -> None:
        last.append(line)
        workshop.log(line)

    workshop.log(f"tests: {shlex.join(program.command)}")
    process: subprocess.Popen[bytes] | None = None
    try:
        if warm is not None:
            process = warm.hand_over(program)
        code = workshop.children.run(program, on_line, process)
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
