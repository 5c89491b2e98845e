"""A pipeline elsewhere: how its address is written, and what is missing for one by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_builder.images.settings import ImageSettings
from stoker_cli.git_flags import read_git_options
from stoker_cli.serve import serve
from stoker_cli.serve_pipeline import pipeline
from stoker_cli.server.pipeline import PipelineOptions
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage


def options(*flags: str) -> PipelineOptions:
    return read_git_options(serve.make_context("serve", list(flags)).params, ImageSettings())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://stoker-builder.openfaas:8084", "tcp:stoker-builder.openfaas:8084"),
        ("http://10.96.0.7:8084/", "tcp:10.96.0.7:8084"),
        ("http://builder", "tcp:builder:80"),
        ("http://[fd00::7]:8084", "tcp:[fd00::7]:8084"),
    ],
)
def test_its_address_is_one_that_proxies_dial(url: str, address: str) -> None:
    assert options(f"--pipeline={url}").elsewhere == address


@pytest.mark.parametrize(
    "url",
    [
        "builder:8084",
        "https://b:1",
        "http://",
        "http://a:b@c:1",
        "http://b:1/x",
        "http://b:99999",
        "http://b?x",
        "http://[::",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadUsage, match="is not an address: write it as http://HOST:PORT"):
        options(f"--pipeline={url}")


def test_none_and_one_elsewhere_exclude_each_other() -> None:
    with pytest.raises(BadUsage, match="contradict each other"):
        options("--no-git", "--pipeline=http://b:1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--gateway=http://g:8080",), "--nats is missing"),
        (("--gateway=ftp://g", "--nats=nats://n:4222"), "is not an address"),
        (("--gateway=http://g", "--nats=nats://n", "--function-namespace=-x"), "namespace"),
        (("--gateway=http://g", "--nats=nats://n", "--deploy-deadline=2d"), "duration"),
        (("--gateway=http://g", "--nats=nats://n", "--image-builder=docker"), "needs --image-prefix"),
    ],
)
def test_a_pipeline_by_itself_says_what_it_lacks(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    around = Surroundings({"STOKER_DATA_DIR": str(tmp_path / "data")}, tmp_path, is_root=False)
    with pytest.raises(BadUsage, match=message):
        pipeline.main(list(flags), standalone_mode=False, obj=around)
    assert not (tmp_path / "data").exists()
