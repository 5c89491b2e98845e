"""Images by a buildkitd, through its client `buildctl`: one command tests, builds and pushes.

What is built and not pushed stays in the daemon's cache, where the next build finds its steps.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.images.buildctl_log import RawLog
from stoker_builder.images.builder import Built, Order, Run, arguments_of
from stoker_builder.images.context import prepare_context
from stoker_builder.images.docker import check_can_be_pushed, secret_flags
from stoker_builder.images.dockerfile import TEST_STAGE, leaves_out_tests
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.programs import find_program, follow
from stoker_sdk.rollout import Progress

_ADDRESS: Final = re.compile(r"(unix:///.+|tcp://[^/\s]+:[0-9]{1,5})")
_TLS_FILES: Final = ("ca.pem", "cert.pem", "key.pem")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")


@dataclass(frozen=True)
class Daemon:
    """Where a buildkitd listens: `unix://PATH` or `tcp://HOST:PORT`. `tls` is a folder with ca.pem, cert.pem and
    key.pem; empty for none. `plain_registries` are those that it is to speak plain HTTP with, beside those on loopback.
    """

    address: str
    tls: str = ""
    plain_registries: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises `BadInput`."""
        if not _ADDRESS.fullmatch(self.address):
            raise BadInput(f"buildkitd's address {self.address[:80]!r} is none: write unix://PATH or tcp://HOST:PORT")
        missing = [name for name in _TLS_FILES if self.tls and not Path(self.tls, name).is_file()]
        if missing:
            raise BadInput(f"{self.tls} has no {missing[0]}: a buildkitd's TLS needs {', '.join(_TLS_FILES)}")

    @property
    def flags(self) -> list[str]:
        if not self.tls:
            return [f"--addr={self.address}"]
        ca, certificate, key = (str(Path(self.tls, name)) for name in _TLS_FILES)
        return [f"--addr={self.address}", f"--tlscacert={ca}", f"--tlscert={certificate}", f"--tlskey={key}"]

    def is_plain(self, image: str) -> bool:
        registry = image.partition("/")[0]
        return registry in self.plain_registries or bool(_LOOPBACK.fullmatch(registry.rpartition(":")[0] or registry))


class BuildKitBuilder:
    """`environment` names the logins, as docker reads them (DOCKER_CONFIG)."""

    def __init__(self, daemon: Daemon, environment: Mapping[str, str], run: Run = follow) -> None:
        self._daemon = daemon
        self._environment = environment
        self._run = run

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        """As `ImageBuilder.build`."""
        self._daemon.check()
        if order.squash:
            raise BadInput("a buildkitd does not squash layers: leave --squash out, or use --builder docker")
        if push:
            check_can_be_pushed(order.image)
        program = find_program("buildctl", "it is the client of buildkitd", self._environment)
        context, dockerfile = prepare_context(order)
        begin = [program, *self._daemon.flags, *solve_flags(order, self._environment)]
        if leaves_out_tests(dockerfile):
            progress.step("testing with buildkit")
            self._follow([*begin, f"--opt=target={TEST_STAGE}"], context, progress)
        progress.step("building with buildkit")
        if order.cache:
            begin += cache_flags(order.cache, plain=self._daemon.is_plain(order.cache))
        if not push:
            self._follow(begin, context, progress)
            return Built(order.image)
        with tempfile.TemporaryDirectory(prefix="stoker-buildctl-") as folder:
            metadata = Path(folder, "metadata.json")
            output = output_flags(order, plain=self._daemon.is_plain(order.image))
            self._follow([*begin, *output, f"--metadata-file={metadata}"], context, progress)
            digest = digest_in(metadata.read_text() if metadata.is_file() else "")
        progress.log(f"pushed {order.image}: digest: {digest}")
        return Built(f"{order.image}@{digest}")

    def _follow(self, command: Sequence[str], context: Path, progress: Progress) -> None:
        build = RawLog()

        def log(line: str) -> None:
            for shown in build.lines(line):
                progress.log(shown)

        try:
            self._run(command, log, self._environment, context)
        except StokerError as error:
            raise (build.failure() or error) from None


def solve_flags(order: Order, environment: Mapping[str, str]) -> list[str]:
    """The command line of `buildctl build`, without an output. The context is the folder that it runs in.

    `BUILDKIT_SYNTAX` keeps the daemon's own front end in force, whatever a Dockerfile's `#syntax=` names.
    """
    options = {"platform": order.platform} if order.platform else {}
    options |= {f"label:{key}": text for key, text in sorted(order.labels.items())}
    options |= {f"build-arg:{key}": text for key, text in arguments_of(order, environment).items()}
    options["build-arg:BUILDKIT_SYNTAX"] = "dockerfile.v0"
    return [
        *("build", "--progress=rawjson", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=."),
        *(f"--opt={key}={text}" for key, text in options.items()),
        *(["--no-cache"] if order.no_cache else []),
        *secret_flags(order),
    ]


def output_flags(order: Order, *, plain: bool) -> list[str]:
    """To the registry, under its name; `plain` for a registry without TLS."""
    return [f"--output={_csv(['type=image', f'name={order.image}', 'push=true'], plain=plain)}"]


def digest_in(metadata: str) -> str:
    """What the registry has the image under, from the file that `--metadata-file` names. Raises `StokerError`."""
    try:
        digest = json.loads(metadata)["containerimage.digest"]
    except (ValueError, KeyError, TypeError):
        digest = ""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise StokerError("buildctl has named no digest of what it pushed: nobody can say what lies in the registry")
    return digest


def cache_flags(image: str, *, plain: bool) -> list[str]:
    """Steps kept in a registry; one that cannot be reached fails no build."""
    parts = ["type=registry", f"ref={image}"]
    kept = _csv([*parts, "mode=max", "ignore-error=true"], plain=plain)
    return [f"--export-cache={kept}", f"--import-cache={_csv(parts, plain=plain)}"]


def _csv(parts: Sequence[str], *, plain: bool) -> str:
    """One record: what holds a comma or a quote is quoted, as buildctl reads it. `plain`: the registry has no TLS."""
    fields = [*parts, "registry.insecure=true"] if plain else parts
    return ",".join(f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & set(',"') else text for text in fields)
