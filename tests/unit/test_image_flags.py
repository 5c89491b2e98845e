"""Who builds pushes: which flags of `stoker serve` go together, and what a run makes of them."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker_builder.errors import FailedBuild
from stoker_builder.images.builder import Built, Order
from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.run.images import Images
from stoker_builder.pipeline.run.manifest import Wanted
from stoker_builder.request import BuildRequest
from stoker_cli.image_flags import read_image_options
from stoker_sdk.archive import BuildSettings
from stoker_sdk.errors import BadInput, BadUsage, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.origin import check_origin
from stoker_sdk.rollout import Progress
from stoker_sdk.runs import FORK, Push

FLAGS = {
    "image_builder": "docker",
    "image_prefix": "r.example.org/me/",
    "buildkit": "",
    "buildkit_tls": None,
    "registry_config": None,
    "plain_registry": (),
}
PUSH = Push("stoker", "Me", "web", "main", "a" * 40)
SOURCE = "sha256:" + "5" * 64


def read(environment: dict[str, str] | None = None, **flags: object) -> ImageSettings:
    return read_image_options(FLAGS | flags, "unix:///engine", environment or {})


def test_what_a_run_is_told() -> None:
    found = read(plain_registry=("r:1",), registry_config="/logins")
    assert found == ImageSettings(
        "docker", "r.example.org/me", "unix:///engine", plain_registries=("r:1",), docker_config="/logins"
    )
    assert read(image_builder="local", image_prefix="") == ImageSettings()
    assert read({"BUILDKIT_HOST": "unix:///b"}, image_builder="buildkit").buildkit == "unix:///b"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"image_prefix": ""}, "needs --image-prefix"),
        ({"image_builder": "local"}, "--image-prefix is for images"),
        ({"image_builder": "buildkit"}, "needs --buildkit ADDRESS"),
        *(
            ({"image_prefix": prefix}, "is no place for images")
            for prefix in (
                "me",
                "r.example.org",
                "r.example.org/Me",
                "me/you",
                "r:5000/a b",
                "-r.example.org/x",
                "r:1//x",
            )
        ),
    ],
)
def test_flags_that_do_not_go_together(flags: dict[str, object], words: str) -> None:
    with pytest.raises(BadUsage, match=words):
        read(**flags)


class Builder:
    """Writes down what is ordered, says a line, and fails if it is told to."""

    def __init__(self, line: str = "", failure: str = "") -> None:
        self.orders: list[Order] = []
        self._line = line
        self._failure = failure

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        assert push
        self.orders.append(order)
        progress.log(self._line)
        if self._failure:
            raise StokerError(self._failure)
        return Built(f"{order.image}@{SOURCE}")


def wanted(**secrets: str) -> Wanted:
    settings = BuildSettings("greet", "python3", {"A": "1"}, secrets=secrets)
    origin = check_origin("me", "web", "greet")
    return Wanted("greet", origin, BuildRequest(settings, Path(), None, {}, None), FunctionSpec(origin.name))


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Images]:
    def make(builder: Builder, logins: object = None) -> Images:
        file = tmp_path / "logins"
        file.write_text(json.dumps(logins or {}))
        settings = ImageSettings("docker", "r.example.org/p", docker_config=str(file))
        made = Images(settings, Path(tempfile.mkdtemp(dir=tmp_path), "images"), builder)
        made._builder = builder
        return made

    return make


def test_the_platform_names_the_image(images: Callable[..., Images]) -> None:
    builder = Builder()
    lines: list[str] = []
    image = images(builder).build(wanted(), PUSH, SOURCE, lines.append).image
    assert image == f"r.example.org/p/greet--web--me:{'5' * 40}@{SOURCE}"
    assert lines[-1] == f"built {image}"
    (order,) = builder.orders
    assert order.labels["stoker.dev/owner"] == "me" and order.secrets == {}


def test_another_owner_s_steps_and_those_of_a_fork_are_not_shared(images: Callable[..., Images]) -> None:
    dockerfile = "FROM debian\nRUN --mount=type=cache,target=/c x\n"

    def built(push: Push) -> str:
        builder = Builder()
        images(builder).build(wanted(), push, SOURCE, lambda _: None)
        return builder.orders[0].dockerfile(dockerfile)

    other = Push("stoker", "you", "web", "main", "a" * 40)
    fork = Push("github", "me", "web", "main", "a" * 40, pull=3, details={FORK: "1"})
    texts = [built(push) for push in (PUSH, other, fork)]
    assert len(set(texts)) == 3 and built(PUSH) == texts[0]


def test_the_rules_know_every_argument_of_the_build(images: Callable[..., Images]) -> None:
    """`ADDITIONAL_PACKAGE` is always given, so a default of the Dockerfile's own hides nothing."""
    builder = Builder()
    images(builder).build(wanted(), PUSH, SOURCE, lambda _: None)
    hidden = "ARG ADDITIONAL_PACKAGE=x\nFROM r.example.org/${ADDITIONAL_PACKAGE}p/greet--web--you\n"
    with pytest.raises(BadInput, match="an image of this platform's owners"):
        builder.orders[0].dockerfile(hidden)


def test_secrets_and_logins_are_in_no_line_and_no_reason(images: Callable[..., Images]) -> None:
    auth = base64.b64encode(b"me:pass-word").decode()
    builder = Builder(f"t0p-secret pass-word {auth}", "it said t0p-secret and pass-word")
    lines: list[str] = []
    made = images(builder, {"auths": {"r.example.org": {"auth": auth}}})
    with pytest.raises(FailedBuild, match=r"it said \(secret\) and \(secret\)"):
        made.build(wanted(INDEX_TOKEN="t0p-secret"), PUSH, SOURCE, lines.append)
    assert lines == ["(secret) (secret) (secret)"]
    files = builder.orders[0].secrets
    assert files["build-environment"].read_text() == "export INDEX_TOKEN=t0p-secret\n"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files.values())


def test_logins_that_are_none_are_the_operator_s_to_mend(images: Callable[..., Images]) -> None:
    with pytest.raises(StokerError, match="--registry-config"):
        images(Builder(), ["secret"]).build(wanted(), PUSH, SOURCE, lambda _: None)
