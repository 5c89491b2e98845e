"""What the pages say of functions and repositories: plain rows, put together from the APIs' values, with no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoker_gateway.pages.access import Session, origin_or_none, owner_of
from stoker_sdk.function import FunctionStatus
from stoker_sdk.messages import FunctionFigures
from stoker_sdk.names import DEFAULT_NAMESPACE
from stoker_sdk.runs import PLACE, RUN, SHA, Run


@dataclass(frozen=True)
class FunctionRow:
    """One function. `title` is what its owner calls it; `run` is 0 where none deployed it."""

    status: FunctionStatus
    figures: FunctionFigures
    title: str
    owner: str
    repository: str
    branch: str
    sha: str
    run: int
    url: str

    @property
    def state(self) -> str:
        if self.status.stoker is not None:
            return self.status.stoker.state
        return "ready" if self.status.available_replicas else "not ready"

    @property
    def reason(self) -> str:
        return self.status.stoker.message if self.status.stoker is not None else ""


@dataclass(frozen=True)
class RepositoryRow:
    """One repository, by its newest run."""

    owner: str
    name: str
    newest: Run


def function_row(status: FunctionStatus, figures: FunctionFigures | None, gateway: str) -> FunctionRow:
    """`gateway` is this platform's address, as the browser knows it."""
    annotations, origin = status.annotations or {}, origin_or_none(status)
    run = annotations.get(RUN, "")
    urls = status.stoker.urls if status.stoker is not None else []
    return FunctionRow(
        status=status,
        figures=figures or FunctionFigures(status.name, status.namespace),
        title=origin.function if origin else status.name,
        owner=owner_of(status),
        repository=origin.repository if origin else "",
        branch=f"#{origin.pull}" if origin and origin.pull else annotations.get(PLACE, "").partition(" ")[2],
        sha=annotations.get(SHA, ""),
        run=int(run) if run.isascii() and run.isdigit() and len(run) < 16 else 0,
        url=urls[0] if urls else f"{gateway}/function/{_route(status)}",
    )


def function_rows(
    statuses: Iterable[FunctionStatus], figures: Iterable[FunctionFigures], session: Session, gateway: str
) -> list[FunctionRow]:
    """Those that the session may see, by owner, repository and name; functions without an owner come first."""
    by_name = {(one.namespace, one.name): one for one in figures}
    rows = [
        function_row(status, by_name.get((status.namespace, status.name)), gateway)
        for status in statuses
        if session.may_see_function(status)
    ]
    return sorted(rows, key=lambda row: (row.owner, row.repository, row.branch, row.title, row.status.namespace))


def repository_rows(runs: Sequence[Run], session: Session) -> list[RepositoryRow]:
    """By name, from runs of which the newest come first."""
    newest: dict[tuple[str, str], Run] = {}
    for run in runs:
        if session.may_see_run(run):
            newest.setdefault((run.push.owner.lower(), run.push.repository.lower()), run)
    return [RepositoryRow(owner, name, run) for (owner, name), run in sorted(newest.items())]


def by_owner(rows: Iterable[FunctionRow], repositories: Iterable[RepositoryRow]) -> dict[str, list[FunctionRow]]:
    """Functions by owner, in order; owners whose runs have brought none up to now are there, too."""
    found: dict[str, list[FunctionRow]] = {each.owner: [] for each in repositories}
    for row in rows:
        found.setdefault(row.owner, []).append(row)
    return dict(sorted(found.items()))


def _route(status: FunctionStatus) -> str:
    return status.name if status.namespace == DEFAULT_NAMESPACE else f"{status.name}.{status.namespace}"
