"""Where tests run: a folder, a user id that no other tests have at the same time, and a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.child import end_all_of
from stoker_builder.config import Config
from stoker_builder.errors import FailedTests
from stoker_builder.network import own_network
from stoker_builder.staging import lock
from stoker_builder.tree import hand_over

_PLACES: Final = 64


@dataclass(frozen=True)
class Place:
    """The folder `scratch` is root's, and closed to all others, until it is given to the tests' `user`, who is None
    where the platform is not root. `network` is None where tests have the machine's.
    """

    scratch: Path
    user: int | None
    network: int | None

    @property
    def home(self) -> Path:
        return self.scratch / "home"

    @property
    def variables(self) -> dict[str, str]:
        """For tests of any language."""
        return {
            "PATH": f"{self.scratch / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
        }

    def give_home(self) -> None:
        """The user may run there already; what is filled beside it until `give` must be closed to others itself."""
        if self.user is not None:
            os.chown(self.home, self.user, self.user)
            self.scratch.chmod(0o711)

    def give(self) -> None:
        """All of it: the last that the platform does there. The home may be the user's, and in use, since long."""
        if self.user is None:
            return
        for path in self.scratch.iterdir():
            if path != self.home:
                hand_over(path, self.user)
        for folder in (self.home, self.scratch):
            os.chown(folder, self.user, self.user, follow_symlinks=False)


@contextmanager
def place_for_tests(config: Config, scratch: Path, *, offline: bool) -> Iterator[Place]:
    """Raises `FailedTests` when all user ids for tests are taken."""
    scratch.mkdir(mode=0o700)
    (scratch / "home").mkdir(mode=0o700)
    with ExitStack() as held:
        user = held.enter_context(_user_for_tests(config))
        network = held.enter_context(own_network()) if offline else None
        yield Place(scratch, user, network)


@contextmanager
def _user_for_tests(config: Config) -> Iterator[int | None]:
    """A user id that no other build's tests have now, cleared of what a dead build left running; None if not
    root.
    """
    if config.ids is None:
        yield None
        return
    with ExitStack() as held:
        place = _free_place(config.data.builds / "locks", held)
        user = config.ids.id_for(f"tests:{place}")
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
