"""The annotations of the contract that say how health is asked for: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec
from stoker_sdk.probes import Probes, parse_probes

READY, ALIVE = "com.openfaas.ready.http.", "com.openfaas.health.http."


@pytest.mark.parametrize(
    ("annotations", "probes"),
    [
        (None, Probes(0, 2, 1, 3, 1, 60)),
        ({"topic": "x"}, Probes()),
        ({READY + "path": "/_/ready"}, Probes()),
        ({READY + "periodSeconds": "5", READY + "timeoutSeconds": "3"}, Probes(period=5, timeout=3)),
        ({READY + "failureThreshold": "1", READY + "successThreshold": "2"}, Probes(failures=1, successes=2)),
        ({READY + "initialDelaySeconds": "30s"}, Probes(delay=30)),  # older documents write a duration
        ({ALIVE + "failureThreshold": "3"}, Probes(replace_after=6)),
        ({ALIVE + "failureThreshold": "3", READY + "periodSeconds": "10"}, Probes(period=10, replace_after=30)),
        ({ALIVE + "periodSeconds": "10"}, Probes(replace_after=300)),
        ({ALIVE + "periodSeconds": "10", ALIVE + "failureThreshold": "6"}, Probes(replace_after=60)),
        ({ALIVE + "failureThreshold": "0"}, Probes(replace_after=0)),
        ({READY + "periodSeconds": ""}, Probes()),
    ],
)
def test_annotations_become_numbers(annotations: dict[str, str] | None, probes: Probes) -> None:
    assert parse_probes(annotations) == probes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (READY + "periodSeconds", "0"),
        (READY + "periodSeconds", "-1"),
        (READY + "periodSeconds", "soon"),
        (READY + "periodSeconds", "10ms"),
        (READY + "periodSeconds", "9" * 400),
        (READY + "timeoutSeconds", "3601"),
        (READY + "initialDelaySeconds", "1e3"),
        (READY + "failureThreshold", "0"),
        (READY + "failureThreshold", "2.5"),
        (READY + "successThreshold", "٣"),
        (ALIVE + "failureThreshold", "1001"),
        (ALIVE + "successThreshold", "2"),
        (ALIVE + "timeoutSeconds", "x"),
        (ALIVE + "initialDelaySeconds", "x"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_at_the_deploy_by_its_name(key: str, value: str) -> None:
    spec = FunctionSpec("greet", "image", annotations={key: value})
    with pytest.raises(BadInput, match=key):
        spec.check()


@pytest.mark.parametrize("value", ["0", "soon", "2h", "-1s"])
def test_a_start_timeout_that_cannot_be_used_is_refused(value: str) -> None:
    with pytest.raises(BadInput, match="start_timeout"):
        FunctionSpec("greet", "image", annotations={"stoker.dev/start_timeout": value}).check()
