"""How pushes become images: what the flags of `stoker serve` say, on its way to the process of a run."""

from __future__ import annotations

import msgspec

from stoker_builder.images.kinds import LOCAL


class ImageSettings(msgspec.Struct, frozen=True):
    """`builder` is one of `kinds.BUILDERS`; with `LOCAL`, the gateway's own, nothing else counts.

    `prefix` is the registry and path that all images lie under. `docker_host` is the Engine's address, `buildkit` a
    buildkitd's, `buildkit_tls` a folder with ca.pem, cert.pem and key.pem (empty: none). `plain_registries` speak HTTP
    without TLS. `docker_config` is a file of registry logins, as docker writes it. `seconds` bounds a function's build.
    """

    builder: str = LOCAL
    prefix: str = ""
    docker_host: str = ""
    buildkit: str = ""
    buildkit_tls: str = ""
    plain_registries: tuple[str, ...] = ()
    docker_config: str = ""
    seconds: float = 1200.0
