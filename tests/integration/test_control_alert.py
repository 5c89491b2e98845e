"""`/system/alert`: what Alertmanager sends, and what becomes of replicas (contract 2.4, 6.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_harness import GREET, Control, assert_error, running_control

from stoker_gateway.control.alert import next_replicas
from stoker_gateway.providers.memory import MemoryProvider
from stoker_sdk.errors import BadInput, Unavailable
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with running_control(tmp_path) as running:
        yield running


def bounds(**labels: str) -> FunctionSpec:
    return FunctionSpec("greet", labels={f"com.openfaas.scale.{key}": value for key, value in labels.items()})


@pytest.mark.parametrize(
    ("status", "current", "spec", "wanted"),
    [
        ("firing", 1, bounds(), 5),  # 20 % of 20
        ("firing", 0, bounds(), 4),
        ("firing", 19, bounds(), 20),
        ("firing", 20, bounds(), 20),
        ("firing", 1, bounds(max="5", factor="10"), 2),  # half a replica is one
        ("firing", 1, bounds(max="10", factor="100"), 10),
        ("firing", 3, bounds(factor="0"), 3),
        ("resolved", 3, bounds(factor="0"), 3),
        ("resolved", 7, bounds(), 1),
        ("resolved", 7, bounds(min="3"), 3),
        ("resolved", 0, bounds(min="3"), 0),
        ("", 7, bounds(), 1),
    ],
)
def test_an_alert_adds_a_step_and_its_end_goes_back_to_the_least(
    status: str, current: int, spec: FunctionSpec, wanted: int
) -> None:
    assert next_replicas(status, current, spec) == wanted


@pytest.mark.parametrize("factor", ["101", "-1", "1.5", "often"])
def test_a_factor_that_is_no_percentage_is_refused_when_deployed(factor: str) -> None:
    spec = FunctionSpec("greet", "i", labels={"com.openfaas.scale.factor": factor})
    with pytest.raises(BadInput):
        spec.check()


def alert(status: str, name: str = "greet.openfaas-fn") -> dict[str, Any]:
    labels = {"alertname": "APIHighInvocationRate", "function_name": name, "severity": "major"}
    return {"status": status, "labels": labels, "annotations": {"summary": "x"}, "startsAt": "2026-01-31T12:00:00Z"}


async def send(control: Control, *alerts: dict[str, Any]) -> None:
    group = {"version": "4", "status": "firing", "receiver": "scale-up", "alerts": list(alerts), "truncatedAlerts": 0}
    async with control.client.post("/system/alert", json=group) as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_firing_scales_up_and_resolved_scales_back(control: Control) -> None:
    await control.deploy()
    for status, replicas in (("firing", 5), ("firing", 9), ("resolved", 1)):
        await send(control, alert(status))
        assert control.provider.get(GREET).replicas == replicas


async def test_unknown_functions_are_no_error_and_the_others_are_scaled(control: Control) -> None:
    await control.deploy()
    odd = [alert("firing", name) for name in ("nobody.openfaas-fn", "greet.nowhere", "../x", "", ".", "a.b.c")]
    await send(control, *odd, {"status": "firing"}, alert("firing"))
    assert control.provider.get(GREET).replicas == 5


async def test_keys_in_any_case_and_nulls_are_read_as_go_reads_them(control: Control) -> None:
    await control.deploy()
    one = {"Status": "firing", "LABELS": {"function_name": "greet"}}
    async with control.client.post("/system/alert", json={"Alerts": [None, one], "receiver": None}) as response:
        assert response.status == 200
    assert control.provider.get(GREET).replicas == 5


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'{"alerts": {}}', b'{"alerts": [5]}', b"\xff",
                                  b'{"alerts": [{"labels": {"function_name": 5}}]}', b"[" * 100_000])  # fmt: skip
async def test_what_is_no_alert_is_refused_in_the_words_of_the_contract(control: Control, body: bytes) -> None:
    async with control.client.post("/system/alert", data=body) as response:
        await assert_error(response, 400, "bad-input", "Unable to parse alert, bad format.")


async def test_a_body_that_is_too_large_is_refused(control: Control) -> None:
    async with control.client.post("/system/alert", data=b" " * 1024 * 1024 + b"{}") as response:
        await assert_error(response, 413, "too-large")


class _Stuck(MemoryProvider):
    async def scale(self, key: FunctionKey, replicas: int) -> None:
        raise Unavailable(f"{key} cannot be scaled now")


async def test_failures_are_told_one_line_each(tmp_path: Path) -> None:
    provider = _Stuck()
    async with running_control(tmp_path, provider=provider) as control:
        await control.deploy("a")
        await control.deploy("b")
        group = {"alerts": [alert("firing", "a"), alert("firing", "nobody"), alert("firing", "b")]}
        async with control.client.post("/system/alert", json=group) as response:
            await assert_error(response, 500, "alert-failed")
            lines = (await response.text()).splitlines()
    assert [line.split()[0] for line in lines] == ["[0]", "[2]"]


async def test_alerts_need_credentials_as_every_system_route(control: Control) -> None:
    async with control.client.post("/system/alert", json={}, headers={"Authorization": "Bearer "}) as response:
        assert response.status == 401
