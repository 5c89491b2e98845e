"""What a function's container finds, and where it is asked, on a cluster as on one machine (contract, 8 and 10)."""

from __future__ import annotations

from typing import Final

from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import check_path
from stoker_sdk.units import format_duration

PORT: Final = 8080
SECRETS_PATH: Final = "/var/openfaas/secrets"
READY_PATH: Final = "com.openfaas.ready.http.path"
HEALTH_PATH: Final = "com.openfaas.health.http.path"


def check_paths(spec: FunctionSpec) -> None:
    """Raise `BadInput` for a page of a probe that no path can be."""
    for annotation in (READY_PATH, HEALTH_PATH):
        if text := (spec.annotations or {}).get(annotation):
            check_path(text)


def ready_path(spec: FunctionSpec) -> str:
    """The page that says whether a replica can serve."""
    return (spec.annotations or {}).get(READY_PATH) or "/_/ready"


def environment(spec: FunctionSpec, drain_delay: str) -> dict[str, str]:
    """What the watchdog finds: our defaults, then what the user says, then what is not his to say.

    One `timeout` sets all the limits that would else have to agree. `drain_delay` is how long a replica that ends goes
    on to take calls.
    """
    limit = format_duration(spec.timeout)
    probes = spec.probes
    defaults = {
        "exec_timeout": limit,
        "read_timeout": limit,
        "write_timeout": limit,
        "healthcheck_interval": drain_delay,
        "prefix_logs": "false",  # whoever reads the lines keeps their times
    }
    ours = {
        "OPENFAAS_NAME": spec.service,
        "OPENFAAS_NAMESPACE": spec.key.namespace,
        "STOKER_CONCURRENCY": str(spec.concurrency),
        "STOKER_CONNECTIONS": str(spec.connection_share),
        "STOKER_HEALTH_PERIOD": f"{probes.period:g}",
        "STOKER_HEALTH_TIMEOUT": f"{probes.timeout:g}",
        # Whoever probes counts bad and good answers, for every image alike: the watchdog is not to count them before.
        "STOKER_HEALTH_FAILURES": "1",
        "STOKER_HEALTH_SUCCESSES": "1",
        "STOKER_REPLACE_AFTER": "1ms",
    }
    process = {"fprocess": spec.env_process} if spec.env_process else {}
    return defaults | dict(spec.env_vars or {}) | process | ours
