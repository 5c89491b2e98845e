"""What the stages of one build work with, handed from stage to stage as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.caches import Caches
from stoker_builder.child import Children
from stoker_builder.config import Config
from stoker_builder.interpreter import Interpreter
from stoker_builder.way_out import WayOut

if TYPE_CHECKING:
    from stoker_builder.warm_tests import WarmTests


@dataclass(frozen=True)
class Workshop:
    """`staging` is the build's own folder, gone at its end, `caches` are those that builds share; `log` takes a line of
    the build's log; `waiting` is called while another build holds what this one needs. `way_out` gives the network of
    programs that install, None where it is the machine's. `warm_tests` is what was started ahead for these tests, if
    anything. `secrets` are variables of the install step.
    """

    config: Config
    interpreter: Interpreter
    children: Children
    staging: Path
    caches: Caches
    log: Callable[[str], None]
    waiting: Callable[[], None]
    way_out: Callable[[], WayOut | None]
    warm_tests: WarmTests | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def user_for(self, purpose: str) -> int | None:
        """The id that `UserIds` has for the purpose; None if the platform is not root."""
        return self.config.ids.id_for(purpose) if self.config.ids else None
