"""What the pipeline and the process of one run say to each other: lines of JSON on its input and output."""

from __future__ import annotations

import msgspec

from stoker_builder.images.settings import ImageSettings
from stoker_sdk.runs import FunctionResult, Run


class RemoteSettings(msgspec.Struct, frozen=True):
    """`forge.Remote`, as it travels: on standard input, where nobody else can read it."""

    url: str
    protocol: str
    authorization: str = ""
    user: int = 0
    """0: no user of its own."""


class Job(msgspec.Struct, frozen=True):
    """All that the process of a run is told. `folder` is its own, made and removed by the pipeline."""

    run: Run
    remote: RemoteSettings
    folder: str
    gateway: str
    password_file: str
    seal_key: str
    public_url: str
    images: ImageSettings = ImageSettings()
    namespace: str = ""
    ready_seconds: float = 120.0


class Answer(msgspec.Struct, frozen=True):
    """To the question `may_deploy`: an empty `stop` is a yes, else it is the reason why not."""

    stop: str = ""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the process: something of a log, results so far, a question, or the end (`state` is set)."""

    line: str = ""
    function: str = ""
    functions: list[FunctionResult] | None = None
    seconds: dict[str, float] = {}
    may_deploy: bool = False
    state: str = ""
    reason: str = ""
