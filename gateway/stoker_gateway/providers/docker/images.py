"""Which image a name means, and fetching it.

A tag is pinned when a function is deployed, so that all replicas of a revision are of one image. The Engine asks the
registry, so its mirrors, its certificates and its list of registries without TLS hold. What was built here and never
pushed is pinned by the id that it has here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from stoker_gateway.providers.docker.engine import Engine, EngineAway, Forbidden
from stoker_gateway.providers.docker.pulled import PulledImages
from stoker_gateway.providers.images.credentials import Login, login_for, read_docker_config
from stoker_gateway.providers.images.reference import Reference, parse_reference
from stoker_gateway.providers.local.artefacts import CONTAINER
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec

log = logging.getLogger("stoker.docker")

Logins = Iterable[Mapping[str, Login]]

_DENIED: Final = re.compile(r"no basic auth credentials|unauthorized|authentication required|access .*denied", re.I)
"""The Engine passes a registry's 401 on as an error of its own, so only the words are left."""
_PULL_SECONDS: Final = 1800.0


class Images:
    """The images of one Engine. `config` is the Docker configuration of the platform's user, if he has one."""

    def __init__(self, engine: Engine, config: Path, pulled: PulledImages) -> None:
        self._engine = engine
        self._config = config
        self._pulled = pulled
        self._pulling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pin(self, spec: FunctionSpec, logins: Logins) -> str:
        """`REGISTRY/PATH@sha256:…`, or the id of an image that was built here. Raises `BadInput`, `Unavailable`."""
        reference = parse_reference(spec.image.removeprefix(CONTAINER))
        if reference.digest:
            return reference.pinned(reference.digest)
        name = f"{reference.repository}:{reference.tag}"
        if built := await self._built_here(name):
            return built
        login = login_for(reference, [*logins, await self._own_logins()])
        try:
            return reference.pinned(await self._engine.digest_in_registry(name, login.for_engine if login else ""))
        except EngineAway as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            failure = Unavailable(f"registry {reference.registry} did not say in time which image {name} is")
        except Forbidden:
            raise _refused(reference, login) from None
        except NotFound as error:
            raise BadInput(f"{error}: push it, build it here, or correct its name") from None
        except StokerError as error:
            if _DENIED.search(str(error)):
                raise _refused(reference, login) from None
            failure = Unavailable(f"registry {reference.registry} does not say which image it is: {error}")
        if spec.setting("unpinned") == "true":
            return name
        raise Unavailable(f"{failure}. Deploy with --unpinned to run whatever the tag means")

    async def _built_here(self, name: str) -> str:
        try:
            image = await self._engine.image(name)
        except NotFound:
            return ""
        return "" if image.repo_digests else image.id

    async def _own_logins(self) -> Mapping[str, Login]:
        try:
            document = await asyncio.to_thread(self._config.read_bytes)
        except OSError:
            return {}
        try:
            return read_docker_config(document, str(self._config))
        except BadInput:
            return {}  # settings without logins

    async def fetch(self, image: str, logins: Logins, progress: Callable[[str], None]) -> None:
        """Make sure that it is here. Replicas that start at once fetch it once. Raises `StokerError`."""
        async with self._pulling[image]:
            try:
                await self._engine.image(image)
                self._pulled.is_needed(image)
                return
            except NotFound:
                pass
            if image.startswith("sha256:"):
                raise StokerError(f"image {image} was built here and is gone: build it again, and deploy it")
            login = login_for(parse_reference(image), [*logins, await self._own_logins()])
            progress(f"pulling {image}")
            self._pulled.pulls(image)
            async with asyncio.timeout(_PULL_SECONDS):
                await self._engine.pull(
                    image, login.for_engine if login else "", lambda how: progress(f"pulling {image}: {how}")
                )

    async def collect(self, used: Collection[str], keep: float) -> None:
        """Remove those that were fetched here, and that nothing has used for `keep` seconds."""
        for image in self._pulled.unused(used, keep):
            async with self._pulling[image]:
                if image not in self._pulled.unused(used, keep):
                    continue  # it was asked for meanwhile
                try:
                    if _is_named(image, (await self._engine.image(image)).repo_tags or ()):
                        self._pulled.is_gone(image)  # somebody has fetched it by its tag: it is his now
                        continue
                    await self._engine.remove_image(image)
                except NotFound:
                    pass
                except Conflict:
                    continue  # another platform runs it
            log.info("removed image %s, which no function needs any more", image)
            self._pulled.is_gone(image)
            self._pulling.pop(image, None)


def _is_named(image: str, tags: Iterable[str]) -> bool:
    """Whether one of its tags is of the same repository. Those of others only say that they have the same layers: the
    Engine takes the name away then, and keeps the image.
    """
    repository = parse_reference(image).repository
    return any(parse_reference(tag).repository == repository for tag in tags)


def _refused(reference: Reference, login: Login | None) -> BadInput:
    if login is None:
        return BadInput(
            f"registry {reference.registry} has no {reference.path}:{reference.tag} for those without credentials: "
            f"correct the name, or `docker login {reference.registry}` as the platform's user, or list a secret with a "
            "Docker configuration in the function's secrets"
        )
    return BadInput(
        f"registry {reference.registry} refuses the credentials of {login.source} for {reference.path}: correct them"
    )
