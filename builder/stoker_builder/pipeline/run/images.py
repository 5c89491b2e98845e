"""The builder of a run's functions: the gateway's own, or BuildKit. What it makes is called by the platform alone:
nothing in a repository decides where an image goes.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from stoker_builder.build_secrets import HIDDEN, forms_of
from stoker_builder.errors import FailedBuild
from stoker_builder.images.builder import PROXIES, Built, ImageBuilder, Order, arguments_of
from stoker_builder.images.buildkit import BuildKitBuilder, Daemon
from stoker_builder.images.docker import DockerBuilder
from stoker_builder.images.kinds import BUILDKIT, LOCAL
from stoker_builder.images.rules import checked
from stoker_builder.images.settings import ImageSettings
from stoker_builder.pipeline.run.manifest import Wanted
from stoker_sdk.errors import StokerError
from stoker_sdk.processes import die_with_parent
from stoker_sdk.programs import follow
from stoker_sdk.runs import Push

_ENVIRONMENT: Final = "build-environment"
"""The build secret that holds all of them as a shell's variables; our templates read it where they install packages."""
_VALUES: Final = "build-values"
"""Their values, one a line, so that our templates can see that none is in a package."""
_KEPT: Final = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", *PROXIES)
_OF_ENGINE: Final = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
"""By these docker proves itself to an Engine on another machine."""
_TAG_LENGTH: Final = 40


class Images:
    """Builds what a run wants. `folder` is the run's own: logins and build secrets lie there while it lasts.

    `kind` is empty for the local builder, else says what makes an image of the same source another one.
    """

    def __init__(self, settings: ImageSettings, folder: Path, local: ImageBuilder) -> None:
        self._settings = settings
        self._folder = folder
        self._is_local = settings.builder == LOCAL
        self.kind = "" if self._is_local else f"image {settings.prefix}"
        self._builder = local if self._is_local else self._image_builder()

    def build(self, wanted: Wanted, push: Push, source: str, log: Callable[[str], None]) -> Built:
        """The image to deploy. `source` is the digest of what it is made from. Raises `StokerError`; `FailedBuild`
        where the log has the rest.
        """
        lines = _Lines(log)
        if self._is_local:
            return self._builder.build(Order(wanted.request), lines)
        hidden = [*forms_of(wanted.request.settings.secrets), *self._logins()]
        try:
            built = self._builder.build(self._order(wanted, push, source), _Lines(log, hidden), push=True)
        except StokerError as error:
            raise FailedBuild(_without(str(error), hidden), error.code) from None
        log(f"built {built.image}")
        return built

    def _order(self, wanted: Wanted, push: Push, source: str) -> Order:
        name = wanted.origin.name
        image = f"{self._settings.prefix}/{name}"
        scope = f"{self._settings.prefix} {name if push.is_strangers else push.owner.lower()}"
        order = Order(
            wanted.request,
            image=f"{image}:{source.removeprefix('sha256:')[:_TAG_LENGTH]}",
            context=self._folder / "context",
            secrets=self._secret_files(wanted.request.settings.secrets),
            labels=wanted.origin.annotations,
            cache=f"{image}:cache" if self._settings.builder == BUILDKIT else "",
        )
        arguments = arguments_of(order, os.environ)
        return replace(order, dockerfile=lambda text: checked(text, arguments, self._settings.prefix, scope))

    def _image_builder(self) -> ImageBuilder:
        settings = self._settings
        self._folder.mkdir(mode=0o700)
        environment = {name: os.environ[name] for name in (*_KEPT, *_OF_ENGINE) if name in os.environ}
        environment |= {"HOME": str(self._folder), "DOCKER_CONFIG": str(self._logins_folder())}
        if settings.builder == BUILDKIT:
            daemon = Daemon(settings.buildkit, settings.buildkit_tls, settings.plain_registries)
            return BuildKitBuilder(daemon, environment, self._follow)
        return DockerBuilder(environment | {"DOCKER_HOST": settings.docker_host}, self._follow)

    def _follow(
        self,
        command: Sequence[str],
        log: Callable[[str], None],
        environment: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """It ends with us: a client that ends takes its build along."""
        follow(command, log, environment, folder, prepare=die_with_parent, seconds=self._settings.seconds)

    def _logins_folder(self) -> Path:
        """The folder of docker's `config.json`, and of its plug-ins where they are the platform's user's own."""
        folder = self._folder / "docker"
        folder.mkdir(mode=0o700)
        _write(folder / "config.json", self._config())
        plugins = Path(os.environ.get("DOCKER_CONFIG") or Path(os.environ.get("HOME", "/"), ".docker"), "cli-plugins")
        if plugins.is_dir():
            (folder / "cli-plugins").symlink_to(plugins)
        return folder

    def _config(self) -> str:
        if not self._settings.docker_config:
            return "{}"
        try:
            return Path(self._settings.docker_config).read_text()
        except (OSError, UnicodeDecodeError):
            raise StokerError("the registry logins of --registry-config cannot be read: ask the operator") from None

    def _logins(self) -> list[str]:
        """What of the logins no log may show."""
        try:
            logins = json.loads(self._config()).get("auths", {}).values()
            texts = [
                str(login[key]) for login in logins for key in ("auth", "password", "identitytoken") if key in login
            ]
        except (ValueError, AttributeError, TypeError):
            raise StokerError(
                "the registry logins of --registry-config are no JSON of docker's: ask the operator"
            ) from None
        return [form for text in texts for form in (text, _password(text)) if form]

    def _secret_files(self, secrets: Mapping[str, str]) -> dict[str, Path]:
        if not secrets:
            return {}
        folder = self._folder / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(secrets.items())]
        texts = {**secrets, _ENVIRONMENT: "".join(lines), _VALUES: "\n".join(secrets.values()) + "\n"}
        for name, text in texts.items():
            _write(folder / name, text)
        return {name: folder / name for name in texts}


class _Lines:
    def __init__(self, log: Callable[[str], None], hidden: Sequence[str] = ()) -> None:
        self._log = log
        self._hidden = hidden

    def step(self, text: str) -> None:
        self._log(text)

    def log(self, line: str) -> None:
        self._log(_without(line, self._hidden))


def _without(text: str, hidden: Sequence[str]) -> str:
    for form in hidden:
        text = text.replace(form, HIDDEN)
    return text


def _password(login: str) -> str:
    """The password in docker's `auth`, which is base64 of USER:PASSWORD; empty for another text."""
    try:
        return base64.b64decode(login, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
