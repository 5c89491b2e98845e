"""From a function's source to what can be deployed: the order, and the interface of those who carry it out.

`stoker build|push|up` and a run of the pipeline use the same three: the gateway (`local.py`), the Docker Engine's
BuildKit (`docker.py`), a buildkitd (`buildkit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from stoker_builder.request import BuildRequest
from stoker_sdk.rollout import Progress

PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")
"""Variables of the builder's surroundings that the steps of a build get."""


def as_it_is(dockerfile: str) -> str:
    return dockerfile


@dataclass(frozen=True)
class Order:
    """One function to be built.

    `request` is its source; all else is for images. `image` is the name with its tag. `context` is a folder that the
    builder writes anew (`context.py`). `secrets` are files by the ids that a Dockerfile mounts them by. `dockerfile`
    takes the Dockerfile's text and gives the one that is built, or raises. `cache` is an image that keeps the steps,
    for builders that forget; `platform`, such as linux/arm64, is empty for the builder's own.
    """

    request: BuildRequest
    image: str = ""
    context: Path = Path()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    dockerfile: Callable[[str], str] = as_it_is
    platform: str = ""
    cache: str = ""
    no_cache: bool = False
    pull: bool = False
    squash: bool = False


@dataclass(frozen=True)
class Built:
    """The image as it can be deployed, and what took how long within the build, where the builder tells."""

    image: str
    seconds: Mapping[str, float] = field(default_factory=dict)


class ImageBuilder(Protocol):
    """Builds one function after the other."""

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        """Run its tests and build it; with `push`, the image is as its registry has it.

        Raises `StokerError`; `FailedTests`, which says what they printed last, leaves no image.
        """


class Run(Protocol):
    """Runs a program to its end, and passes its lines on; as `stoker_sdk.programs.follow`."""

    def __call__(
        self,
        command: Sequence[str],
        log: Callable[[str], None],
        environment: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """Raises `StokerError` when it fails."""


def arguments_of(order: Order, environment: Mapping[str, str]) -> dict[str, str]:
    """The build arguments, the surroundings' proxies among them, sorted."""
    proxies = {name: environment[name] for name in PROXIES if environment.get(name)}
    return dict(sorted({"ADDITIONAL_PACKAGE": "", **proxies, **order.request.settings.build_args}.items()))
