"""What a build is told from outside: one frozen value, read from arguments and environment in `__main__`
only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stoker_builder.bounds import Bounds
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput
from stoker_sdk.ids import UserIds
from stoker_sdk.units import parse_duration, parse_quantity

DEFAULT_TEST_TIMEOUT = "10m"
DEFAULT_TEST_MEMORY = "2Gi"
DEFAULT_INSTALL_TIMEOUT = "15m"

_INDEX_VARIABLES = {
    *(
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSL_CLIENT_CERT",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "NETRC",
    ),
    *(
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    ),
}
_OUR_OWN = {
    "UV_CACHE_DIR",
    "UV_LINK_MODE",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PROJECT_ENVIRONMENT",
}
_FOR_GO = {"GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS"}
_FOR_NPM = re.compile(r"npm_config_(?!cache$|prefix$|local_prefix$|global|userconfig$|node_gyp$).+", re.IGNORECASE)
_LIKE_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_EXTRA_INDEX_URL",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
}


@dataclass(frozen=True)
class Config:
    """The data folder; user ids, if builds change them (root); limits in seconds and bytes; how to reach an
    index, and what else of this machine (`HOST:PORT`) builds of pushes may reach.
    """

    data: DataDir
    ids: UserIds | None
    test_timeout: float
    test_memory: int
    install_timeout: float
    index_environment: Mapping[str, str]
    bounds: Bounds
    reach: tuple[str, ...] = ()

    @property
    def most_processes(self) -> int:
        """For the kernel to count by user id; 0 where that is also the platform's. A control group counts exactly, and
        ends a build that wants more; so this bound is a little above.
        """
        most = self.bounds.processes
        return most + most // 8 if self.ids else 0


@dataclass(frozen=True)
class StepSettings:
    """What the build arguments say about the test step. An empty `command` is the template's own."""

    enabled: bool
    command: str
    timeout: float
    memory: int


def read_config(
    data: DataDir, ids: UserIds | None, environment: Mapping[str, str], bounds: Bounds, reach: tuple[str, ...] = ()
) -> Config:
    """Raises `BadInput` for a duration or size that is none."""

    def setting(name: str, default: str) -> str:
        return environment.get(name) or default

    return Config(
        data=data,
        ids=ids,
        test_timeout=parse_duration(setting("STOKER_TEST_TIMEOUT", DEFAULT_TEST_TIMEOUT), "STOKER_TEST_TIMEOUT"),
        test_memory=_bytes(setting("STOKER_TEST_MEMORY", DEFAULT_TEST_MEMORY), "STOKER_TEST_MEMORY"),
        install_timeout=parse_duration(
            setting("STOKER_INSTALL_TIMEOUT", DEFAULT_INSTALL_TIMEOUT), "STOKER_INSTALL_TIMEOUT"
        ),
        index_environment=index_environment(environment),
        bounds=bounds,
        reach=reach,
    )


def step_settings(build_args: Mapping[str, str], config: Config) -> StepSettings:
    """Build arguments over the platform's settings (contract section 9.6). Raises `BadInput`."""
    timeout, memory = build_args.get("TEST_TIMEOUT"), build_args.get("TEST_MEMORY")
    enabled = build_args.get("TEST_ENABLED", "true").lower()
    if enabled not in ("true", "false", "1", "0", ""):
        raise BadInput(f"build argument TEST_ENABLED is {enabled[:40]!r}: write true or false")
    return StepSettings(
        enabled=enabled not in ("false", "0"),
        command=build_args.get("TEST_COMMAND", "").strip(),
        timeout=parse_duration(timeout, "build argument TEST_TIMEOUT") if timeout else config.test_timeout,
        memory=_bytes(memory, "build argument TEST_MEMORY") if memory else config.test_memory,
    )


def index_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables that tell uv, npm and go how to reach a package index; pip's own count where uv's are not set."""
    kept = {
        key: value
        for key, value in environment.items()
        if key in _INDEX_VARIABLES | _FOR_GO
        or (key.startswith("UV_") and key not in _OUR_OWN)
        or _FOR_NPM.fullmatch(key)
    }
    for pip, uv in _LIKE_PIP.items():
        if environment.get(pip) and uv not in kept:
            # uv takes several folders and hosts with commas between them, pip with spaces.
            comma = uv in ("UV_FIND_LINKS", "UV_INSECURE_HOST")
            kept[uv] = ",".join(environment[pip].split()) if comma else environment[pip]
    return kept


def _bytes(text: str, what: str) -> int:
    return int(parse_quantity(text, what))
