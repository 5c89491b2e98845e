"""The way of a run, and of each of its functions, in steps: commit, tests, artefact, ready, first call. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoker_gateway.pages.rendering import between, clock, seconds
from stoker_sdk.messages import FunctionFigures
from stoker_sdk.runs import FunctionResult, Run


@dataclass(frozen=True)
class Step:
    """`state` is done, going, failed, or waiting; `text` says more."""

    name: str
    state: str
    text: str = ""


def steps(run: Run) -> list[Step]:
    """Of the whole run."""
    queued = between(run.created_at, run.started_at or run.ended_at)
    begun = bool(run.started_at)
    found = [
        Step("pushed", "done", clock(run.created_at)),
        Step("in line", "done" if begun or not run.is_open else "going", seconds(queued) if queued else ""),
    ]
    if begun:
        took = seconds(between(run.started_at, run.ended_at))
        state = "going" if run.is_open else "failed" if run.state == "failed" else "done"
        found.append(Step(run.state, state, took))
    else:
        found.append(Step(run.state if not run.is_open else "run", "waiting"))
    return found


def function_steps(run: Run, result: FunctionResult, live: Mapping[str, FunctionFigures]) -> list[Step]:
    """Of one function that the run did something to; `live` are the figures of those that it has live, by name."""
    commit = Step("commit", "done", run.push.sha[:7])
    if result.state == "removed":
        return [commit, Step("removed", "done")]
    return [commit, _tests(result), _artefact(result), _ready(result), _first_call(result, live.get(result.service))]


def _tests(result: FunctionResult) -> Step:
    if result.test:
        return Step("build and tests", "failed", result.test)
    took = _took(result, "build", "tests")
    if result.state == "building":
        return Step("build and tests", "going")
    if result.image:
        return Step("build and tests", "done", took or "not needed")
    return Step("build and tests", "failed" if result.state == "failed" else "waiting", took)


def _artefact(result: FunctionResult) -> Step:
    digest = result.image.partition("@")[2]
    return Step("artefact", "done" if result.image else "waiting", digest[:19] if digest else "")


def _ready(result: FunctionResult) -> Step:
    took = _took(result, "deploy", "ready")
    if result.state == "deployed":
        return Step("ready", "done", took)
    if result.state == "deploying":
        return Step("ready", "going")
    return Step("ready", "failed" if result.state == "failed" and result.image else "waiting")


def _took(result: FunctionResult, *stages: str) -> str:
    """How long these stages took together; empty where none of them has ended."""
    known = [result.seconds[stage] for stage in stages if stage in result.seconds]
    return seconds(sum(known)) if known else ""


def _first_call(result: FunctionResult, figures: FunctionFigures | None) -> Step:
    if figures is None:
        return Step("first call", "waiting", "another run is live" if result.state == "deployed" else "")
    if figures.first_call_at:
        return Step("first call", "done", clock(figures.first_call_at))
    return Step("first call", "waiting", "not known" if figures.calls else "none yet")
